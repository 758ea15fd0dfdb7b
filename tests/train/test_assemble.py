import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import inflate
from inflate.cli.app import main
from inflate.video import Video

FAMILY = """
name = "tiny"
[roles]
unet = "{unet}"
scheduler = "{scheduler}"
vae = "{vae}"
[stage_defaults.decoder]
num_inference_steps = 2
guidance_scale = 1.0
"""


@pytest.fixture
def family_file(tmp_path: Path, tiny_family: Path) -> Path:
    from diffusers import DDIMScheduler

    DDIMScheduler(prediction_type="v_prediction").save_pretrained(tmp_path / "scheduler")
    path = tmp_path / "family.toml"
    path.write_text(FAMILY.format(unet=tiny_family / "unet", vae=tiny_family / "vae", scheduler=tmp_path / "scheduler"))
    return path


def test_assembled_parts_are_a_cascade_in_half_precision(family_file, tmp_path, tiny_family, capsys):
    destination = tmp_path / "family"
    assert main(["assemble", str(family_file), str(destination)]) == 0
    assert "MB of weights" in capsys.readouterr().out
    index = json.loads((destination / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"] and index["family"] == "tiny"
    written = load_file(destination / "unet/diffusion_pytorch_model.safetensors")
    source = load_file(tiny_family / "unet/diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float16 for value in written.values())
    assert all(torch.equal(written[name], value.half()) for name, value in source.items())
    cascade = inflate.Cascade.from_pretrained(destination, device="cpu")
    embeds = torch.nn.functional.normalize(torch.randn(1, 32), dim=-1)
    made = cascade(image_embeds=embeds, num_frames=2, generator=torch.Generator().manual_seed(0), output_type="pt")
    assert isinstance(made.frames, torch.Tensor) and made.frames.shape == (1, 2, 3, 32, 32)


def test_half_precision_files_are_copied_byte_for_byte(family_file, tmp_path, tiny_family):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["assemble", str(family_file), str(first), "--quiet"]) == 0
    family_file.write_text(family_file.read_text().replace(str(tiny_family / "vae"), str(first / "vae")))
    assert main(["assemble", str(family_file), str(second), "--quiet"]) == 0
    name = "vae/diffusion_pytorch_model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("vae =", "vea =", "did you mean 'vae'?"),
        ("scheduler =", "# scheduler =", "lacks its component 'scheduler'"),
        ('unet = "', 'unet = "/nowhere', "which is to be its 'unet'; train it first"),
        ("guidance_scale", "guidance", "unknown key 'guidance'"),
    ],
)
def test_bad_family_files_are_one_sentence(family_file, tmp_path, capsys, old, new, sentence):
    family_file.write_text(family_file.read_text().replace(old, new, 1))
    assert main(["assemble", str(family_file), str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_existing_destination_is_kept_without_force(family_file, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert main(["assemble", str(family_file), str(tmp_path / "out")]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["assemble", str(family_file), str(tmp_path / "out"), "--force", "--quiet"]) == 0


SR_FAMILY = """
name = "tiny-sr"
[roles]
sr_unet = "{run}/unet"
sr_scheduler = "{run}/scheduler"
[stage_configs.super_resolution]
window = 4
overlap = 1
"""


def test_what_training_wrote_beside_a_network_reaches_its_stage(tmp_path, tiny_family, capsys):
    from diffusers import DDIMScheduler

    run = tmp_path / "run"
    shutil.copytree(tiny_family / "sr_unet", run / "unet")
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(run / "scheduler")
    (run / "stage_config.json").write_text('{"scale": 4, "residual_std": 0.1}')
    path = tmp_path / "family.toml"
    path.write_text(SR_FAMILY.format(run=run))
    assert main(["assemble", str(path), str(tmp_path / "family"), "--quiet"]) == 0
    cascade = inflate.Cascade.from_pretrained(tmp_path / "family", device="cpu")
    [stage] = cascade.stages
    assert (stage.config.scale, stage.config.residual_std, stage.config.window) == (4, 0.1, 4)
    made: Any = cascade.upscale(Video(np.zeros((2, 8, 8, 3), np.uint8), 8), num_inference_steps=1, output_type="np")
    assert made.frames.shape == (1, 2, 32, 32, 3)
    cascade.save_pretrained(tmp_path / "again")
    assert inflate.Cascade.from_pretrained(tmp_path / "again", device="cpu").stages[0].config == stage.config
    path.write_text(path.read_text().replace("window = 4", "windw = 4"))
    assert main(["assemble", str(path), str(tmp_path / "other")]) == 2
    assert "did you mean 'window'" in capsys.readouterr().err


def test_a_students_scheduler_says_how_many_steps(family_file, tmp_path):
    """The number is in the scheduler's config, where assembling and a stage without other defaults find it."""
    config = tmp_path / "scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_inference_steps": 3}))
    family_file.write_text(family_file.read_text().replace("num_inference_steps = 2\n", ""))
    text = family_file.read_text()
    family_file.write_text(text[: text.index("[stage_defaults")])
    assert main(["assemble", str(family_file), str(tmp_path / "family"), "--quiet"]) == 0
    index = json.loads((tmp_path / "family/model_index.json").read_text())
    assert index.pop("stage_defaults")["decoder"]["num_inference_steps"] == 3
    (tmp_path / "family/model_index.json").write_text(json.dumps(index))
    cascade = inflate.Cascade.from_pretrained(tmp_path / "family", device="cpu")
    assert cascade.settings()["decoder"].num_inference_steps == 3
