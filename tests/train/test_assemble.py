import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import inflate
from inflate.cli.app import main

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
        ('unet = "', 'unet = "/nowhere', "is no folder; train it first"),
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
