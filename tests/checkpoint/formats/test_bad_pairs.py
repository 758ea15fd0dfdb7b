"""Files that do not belong together, and files that are something else: one sentence with the cause and the fix."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inflate.checkpoint import convert, load
from inflate.checkpoint.formats import export_motion, import_motion, inspect_file
from inflate.cli.app import main
from inflate.errors import InputError
from tests.cascade import foreign_pipelines as foreign
from tests.checkpoint.formats.files import VERSIONS, adapter, as_animatediff, as_hotshot, image_model, write


def module(folder: Path, version: str = "animatediff-v1", **changes: Any) -> Path:
    tensors = as_animatediff(dict(adapter(version).state_dict()))
    length = changes.pop("length", VERSIONS[version][2])
    tensors = {key: one[:, :length] if key.endswith(".pe") else one for key, one in tensors.items()}
    return write(folder / f"{version}.safetensors", tensors | changes)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image_model("animatediff-v1").save_pretrained(tmp_path / "sd15")
    return tmp_path / "sd15"


def refused(tmp_path: Path, motion: Path, image: Path, match: str, **options: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        import_motion(motion, image, tmp_path / "video", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "video").exists()


def test_modules_for_another_image_model(image: Path, tmp_path: Path) -> None:
    image_model("animatediff-sdxl").save_pretrained(tmp_path / "sdxl")
    of_xl = module(tmp_path, "animatediff-sdxl")
    refused(
        tmp_path, of_xl, image, r"blocks of 8, 8, 16 channels\), and the image model .* 8, 8, 16, 16; take a module"
    )
    refused(tmp_path, module(tmp_path), tmp_path / "sdxl", "or an image model that it was made for")
    hotshot = as_hotshot(as_animatediff(dict(adapter("animatediff-sdxl").state_dict())))
    refused(
        tmp_path, write(tmp_path / "hs.safetensors", hotshot), image, "does not fit|image model that it was made for"
    )
    tensors = as_animatediff(dict(adapter("animatediff-v1").state_dict()))
    key = next(key for key in tensors if key.endswith("to_q.weight"))
    wide = write(tmp_path / "wide.safetensors", tensors | {key: torch.zeros(12, 12)})
    refused(tmp_path, wide, image, r"has shape \(12, 12\) and should have \(8, 8\)")
    del tensors[key]
    refused(tmp_path, write(tmp_path / "part.safetensors", tensors), image, "does not fit .*: it lacks")
    build = foreign.stable_diffusion  # a whole pipeline is named by its folder
    build(tmp_path / "pipeline")
    refused(tmp_path, of_xl, tmp_path / "pipeline", "blocks of 16, 16, 16, 16")


def test_more_frames_than_positions(image: Path, tmp_path: Path) -> None:
    file = module(tmp_path)
    refused(
        tmp_path, file, image, "has 24 positions and was asked for 32 frames; use --frames 24 or fewer", num_frames=32
    )
    import_motion(file, image, tmp_path / "video")
    video_model = load(tmp_path / "video")
    with pytest.raises(InputError, match="has 24 positions and was asked for 32 frames; make at most 24 at once"):
        video_model(torch.zeros(1, 4, 32, 16, 16), 1, encoder_hidden_states=torch.zeros(1, 5, 12))


def test_files_that_are_no_motion_module(image: Path, tmp_path: Path) -> None:
    spatial = {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 8)}
    cases = {
        "spatial": (spatial, "LoRA for pictures .* load it into the image model with load_lora_weights"),
        "motion_lora": (lora(module(tmp_path)), "MotionLoRA .* give it with --lora"),
        "image": (dict(image_model("animatediff-v1").state_dict()), "image model .* name it as the image model"),
        "other": ({"a.b": torch.zeros(1)}, "unknown weights .* name a file of AnimateDiff"),
        "sparse": (
            {
                "controlnet_cond_embedding.conv_in.weight": torch.zeros(1),
                "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": torch.zeros(8),
            },
            "SparseCtrl",
        ),
    }
    for name, (tensors, match) in cases.items():
        refused(tmp_path, write(tmp_path / f"{name}.safetensors", tensors), image, f"holds no motion module: .*{match}")
    with pytest.raises(InputError, match="holds no image model that inflate knows"):
        convert(module(tmp_path), tmp_path / "video")
    refused(tmp_path, tmp_path / "sd15", image, "folder of a UNet2DConditionModel, not of a MotionAdapter")
    refused(tmp_path, tmp_path / "none.safetensors", image, "no such file")


def test_pickles_only_when_asked_and_only_tensors(image: Path, tmp_path: Path) -> None:
    tensors = as_animatediff(dict(adapter("animatediff-v2").state_dict()))
    tensors = {f"module.{key}": one for key, one in tensors.items()} | {"module.conv_in.bias": torch.zeros(8)}
    file = tmp_path / "trained.ckpt"
    torch.save({"epoch": 3, "global_step": 7, "state_dict": tensors}, file)
    refused(tmp_path, file, image, "is a pickle")
    done = import_motion(file, image, tmp_path / "video", allow_pickle=True)
    assert done.scheme == "animatediff-v2" and done.ignored == ("module.conv_in.bias",)
    assert any("start with 'module.'" in note for note in done.notes)
    assert any("1 other tensors are in it" in note for note in done.notes)

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match="it is a pickle of more than tensors") as caught:
        import_motion(tmp_path / "evil.ckpt", image, tmp_path / "other", allow_pickle=True)
    assert not (tmp_path / "ran").exists() and "\n" not in str(caught.value)


def test_a_missing_table_of_positions_is_made(image: Path, tmp_path: Path) -> None:
    tensors = as_animatediff(dict(adapter("animatediff-v3").state_dict()))
    bare = {key: one for key, one in tensors.items() if not key.endswith(".pe")}
    done = import_motion(write(tmp_path / "bare.safetensors", bare), image, tmp_path / "video")
    assert done.max_frames == 64 and any("no table of positions" in note for note in done.notes)
    table = load(tmp_path / "video").temporal_state_dict()[
        "down_blocks-0-motion_modules-0.transformer_blocks.0.attn1.pe"
    ]
    expected = adapter("animatediff-v3").state_dict()[
        "down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe"
    ]
    torch.testing.assert_close(table[:, :32], expected)


def lora(module_file: Path, rank: int = 2) -> dict[str, torch.Tensor]:
    """A MotionLoRA for every projection of a module, by AnimateDiff's names."""
    from safetensors.torch import load_file

    result = {}
    for number, (key, tensor) in enumerate(load_file(module_file).items()):
        if not key.endswith(("to_q.weight", "to_out.0.weight")):
            continue
        start, projection = key.removesuffix(".weight").removesuffix(".0").rsplit(".", 1)
        generator = torch.Generator().manual_seed(number)
        for half, shape in (("down", (rank, tensor.shape[1])), ("up", (tensor.shape[0], rank))):
            result[f"{start}.processor.{projection}_lora.{half}.weight"] = torch.randn(shape, generator=generator)
    return result


def test_motion_loras_are_added_with_their_scale(image: Path, tmp_path: Path) -> None:
    file = module(tmp_path, "animatediff-v2")
    changes = lora(file)
    path = write(tmp_path / "lora.safetensors", changes)
    import_motion(file, image, tmp_path / "plain")
    code = main(["import", str(file), str(image), str(tmp_path / "video"), "--lora", f"{path}=0.5", "--quiet"])
    assert code == 0
    plain, changed = (load(tmp_path / name).temporal_state_dict() for name in ("plain", "video"))
    key = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor."
    name = "mid_block-motion_modules-0.transformer_blocks.0.attn2."
    for theirs, ours in (("to_q_lora", "to_q.weight"), ("to_out_lora", "to_out.0.weight")):
        product = changes[f"{key}{theirs}.up.weight"] @ changes[f"{key}{theirs}.down.weight"]
        torch.testing.assert_close(changed[name + ours], plain[name + ours] + 0.5 * product)
    assert torch.equal(changed[name + "to_k.weight"], plain[name + "to_k.weight"])
    # diffusers' names
    for pattern in ("{}.processor.{}_lora.{}", "{}.{}.lora_{}"):
        renamed = {}
        for one, tensor in changes.items():
            start, rest = one.split(".processor.")
            projection, half, _ = rest.replace("_lora", "").split(".")
            start = start.replace("temporal_transformer.", "").replace("attention_blocks.0", "attn1")
            half = half if "processor" in pattern else {"down": "A", "up": "B"}[half]
            renamed[f"unet.{pattern.format(start.replace('attention_blocks.1', 'attn2'), projection, half)}.weight"] = (
                tensor
            )
        again = write(tmp_path / "again.safetensors", renamed)
        import_motion(file, image, tmp_path / "again", loras=[(again, 0.5)], force=True)
        found = load(tmp_path / "again").temporal_state_dict()
        assert all(torch.equal(found[one], changed[one]) for one in changed)
    refused(
        tmp_path / "x", module(tmp_path, "animatediff-v3"), image, "MotionLoRAs go with v2 modules", loras=[(path, 1.0)]
    )
    refused(tmp_path / "x", file, image, "is no MotionLoRA: ", loras=[(file, 1.0)])


def test_pia_brings_its_own_first_convolution(image: Path, tmp_path: Path) -> None:
    weight, bias = torch.randn(8, 9, 3, 3), torch.randn(8)
    file = module(tmp_path, "animatediff-v3", **{"conv_in.weight": weight, "conv_in.bias": bias})
    import_motion(file, image, tmp_path / "video")
    video_model = load(tmp_path / "video")
    seen: list[torch.Tensor] = []
    handle = video_model.image_model.conv_in.register_forward_hook(lambda module, args, output: seen.append(output))
    sample = torch.randn(1, 9, 2, 16, 16)
    video_model(sample, 1, encoder_hidden_states=torch.zeros(1, 5, 12))
    handle.remove()
    expected = torch.nn.functional.conv2d(sample[0].transpose(0, 1), weight, bias, padding=1)
    torch.testing.assert_close(seen[0], expected)
    export_motion(tmp_path / "video", tmp_path / "again.safetensors", "animatediff")
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "again.safetensors")["conv_in.weight"], weight)
    assert "PIA" in (inspect_file(file).version or "")


def test_a_whole_unet_gives_its_motion_modules_alone(image: Path, tmp_path: Path) -> None:
    motion = as_animatediff(dict(adapter("animatediff-v1").state_dict()))
    lora_key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"
    spatial = dict(image_model("animatediff-v1").state_dict()) | {lora_key: torch.zeros(2, 8)}
    nine = spatial | {"conv_in.weight": torch.zeros(8, 9, 3, 3)}
    for name, others in (("whole", spatial), ("inpainting", nine), ("no_bias", {"conv_in.weight": torch.zeros(8, 9)})):
        file = write(tmp_path / f"{name}.safetensors", motion | others)
        done = import_motion(file, image, tmp_path / name)
        assert set(done.ignored) == set(others) and done.used == len(motion)
        assert not load(tmp_path / name).scheme.field("own_conv_in")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("[]")
    refused(tmp_path, tmp_path / "odd", image, "config.json holds no settings")


def test_part_of_a_motion_lora_is_refused(image: Path, tmp_path: Path) -> None:
    file = module(tmp_path, "animatediff-v2")
    changes = lora(file)
    gone = next(key for key in changes if key.endswith("up.weight"))
    half = {key: one for key, one in changes.items() if key != gone}
    spatial = {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 8)}
    for name, tensors in (("half", half), ("both", changes | spatial)):
        path = write(tmp_path / f"{name}.safetensors", tensors)
        refused(tmp_path, file, image, "has 1 tensors that are no whole change", loras=[(path, 1.0)])


def test_heads_that_a_file_cannot_say(tmp_path: Path) -> None:
    adapter("animatediff-v2").save_pretrained(tmp_path / "adapter")
    image_model("animatediff-v2").save_pretrained(tmp_path / "sd")
    import_motion(tmp_path / "adapter", tmp_path / "sd", tmp_path / "video")
    with pytest.raises(InputError, match=r"with 2 heads, and animatediff files cannot say so.*to motion-adapter"):
        export_motion(tmp_path / "video", tmp_path / "out.safetensors", "animatediff")
    assert not (tmp_path / "out.safetensors").exists()


def test_what_a_format_has_no_place_for_is_named(image: Path, tmp_path: Path) -> None:
    convert(image, tmp_path / "video", "make-a-video", 4)
    with pytest.raises(InputError, match=r"no place for \d+ of its \d+ tensors \(.*only motion modules go there"):
        export_motion(tmp_path / "video", tmp_path / "out.safetensors", "animatediff")
    with pytest.raises(InputError, match="--to is 'comfy'; known: animatediff, hotshot, motion-adapter"):
        export_motion(tmp_path / "video", tmp_path / "out.safetensors", "comfy")
    import_motion(module(tmp_path), image, tmp_path / "ad")
    with pytest.raises(InputError, match=r"have different positions.* export to animatediff"):
        export_motion(tmp_path / "ad", tmp_path / "adapter", "motion-adapter")
    with pytest.raises(InputError, match="Hotshot-XL's format has those of XL only"):
        export_motion(tmp_path / "ad", tmp_path / "out.safetensors", "hotshot")
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        export_motion(tmp_path / "ad", tmp_path / "out.ckpt", "animatediff")
    (tmp_path / "taken.safetensors").write_text("mine")
    with pytest.raises(InputError, match="exists; choose another name"):
        export_motion(tmp_path / "ad", tmp_path / "taken.safetensors", "animatediff")
    assert (tmp_path / "taken.safetensors").read_text() == "mine" and not (tmp_path / "out.safetensors").exists()


def test_the_scheduler_of_the_image_model_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    foreign.stable_diffusion(folder)
    image_model("animatediff-v1").save_pretrained(folder / "unet")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
    file = module(tmp_path)
    done = import_motion(file, folder, tmp_path / "video")
    assert any("predicts v_prediction, and motion modules were trained with" in note for note in done.notes)
    assert any("beta_schedule 'scaled_linear'" in note and "--scheduler writes it" in note for note in done.notes)
    assert done.temporal_file == tmp_path / "video" / "unet" / "temporal.safetensors"
    done = import_motion(file, folder, tmp_path / "linear", set_scheduler=True)
    written = json.loads((tmp_path / "linear" / "scheduler" / "scheduler_config.json").read_text())
    assert (written["beta_schedule"], written["beta_end"], written["_class_name"]) == ("linear", 0.012, "DDIMScheduler")
    assert written["prediction_type"] == "v_prediction", "what the image model predicts stays"
    assert json.loads(config.read_text())["prediction_type"] == "v_prediction", "the image model's own is as it was"


def test_inspecting_says_what_a_file_is(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version, (_, _, length) in VERSIONS.items():
        found = inspect_file(module(tmp_path, version))
        names = {"animatediff-sdxl": "AnimateDiff for SDXL"}
        assert found.version == names.get(version, f"AnimateDiff {version[-2:]}") and found.max_frames == length
        assert found.kind == "motion module" and found.format == "animatediff"
        assert found.parameters == sum(one.numel() for one in adapter(version).parameters())
    adapter("animatediff-v2").save_pretrained(tmp_path / "adapter")
    found = inspect_file(tmp_path / "adapter", image)
    assert (found.format, found.version, found.why_not) == ("motion-adapter", "AnimateDiff v2", None)
    found = inspect_file(tmp_path / "animatediff-sdxl.safetensors", image)
    assert found.why_not is not None and "take a module made for this image model" in found.why_not
    convert(image, tmp_path / "video", "vdm", 4)
    temporal = inspect_file(tmp_path / "video" / "temporal.safetensors", image)
    assert (temporal.kind, temporal.why_not) == ("temporal weights", None) and "scheme vdm" in (temporal.version or "")
    assert main(["inspect", str(tmp_path / "animatediff-v1.safetensors"), "--base", str(image)]) == 0
    printed = capsys.readouterr().out
    assert "AnimateDiff v1" in printed and "24 frames" in printed and "fits" in printed
    assert main(["inspect", str(tmp_path / "adapter"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == "AnimateDiff v2"
