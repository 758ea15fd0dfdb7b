"""A MotionLoRA adds what the tool that trained it adds, wherever that tool keeps alpha."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNetMotionModel
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from inflate.checkpoint import load
from inflate.checkpoint.formats import import_motion, inspect_file

from .files import adapter, image_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion")
    image_model("animatediff-v2").save_pretrained(folder / "image")
    adapter("animatediff-v2").save_pretrained(folder / "adapter")
    import_motion(folder / "adapter", folder / "image", folder / "without", num_frames=8)
    return folder


def trained(folder: Path, **settings: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """A LoRA that PEFT made on diffusers' own motion model and diffusers saved, and what it adds by layer."""
    unet: Any = UNetMotionModel.from_unet2d(image_model("animatediff-v2"), adapter("animatediff-v2"))
    names = [name for name, _ in unet.named_modules() if "motion_modules" in name and name.endswith("to_q")]
    unet.add_adapter(LoraConfig(r=8, target_modules=names, **settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    unet.save_lora_adapter(folder)
    added = {}
    for name in names:
        layer = unet.get_submodule(name)
        change = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
        added[name] = change.detach()
    return next(folder.glob("*.safetensors")), added


def differences(folders: Path, lora: Path, made: Path) -> list[torch.Tensor]:
    import_motion(folders / "adapter", folders / "image", made, num_frames=8, loras=[(lora, 1.0)])
    without, with_it = (load(folder).temporal_state_dict() for folder in (folders / "without", made))
    return [with_it[name] - value for name, value in without.items() if not torch.equal(with_it[name], value)]


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": 2},
        {"lora_alpha": 8},
        {"lora_alpha": 4, "use_rslora": True},
        {"lora_alpha": 2, "alpha_pattern": {"attn2.to_q": 16}},
    ],
    ids=["quarter", "whole", "rank-stabilised", "by-layer"],
)
def test_alpha_in_the_metadata(folders: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    lora, added = trained(tmp_path / "lora", **settings)
    found = differences(folders, lora, tmp_path / "made")
    assert len(found) == len(added)
    expected, got = (sorted(float(one.norm()) for one in changes) for changes in (added.values(), found))
    assert got == pytest.approx(expected, rel=1e-4)


def test_alpha_in_pefts_own_folder(folders: Path, tmp_path: Path) -> None:
    lora, added = trained(tmp_path / "lora", lora_alpha=2)
    bare = tmp_path / "peft"
    bare.mkdir()
    save_file(load_file(lora), bare / "adapter_model.safetensors")
    (bare / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "lora_alpha": 2}')
    for number, given in enumerate((bare, bare / "adapter_model.safetensors")):
        found = differences(folders, given, tmp_path / f"made{number}")
        expected, got = (sorted(float(one.norm()) for one in changes) for changes in (added.values(), found))
        assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("unet.conv_in.dora_scale", "DoRA"),
        ("base_model.model.conv_in.lora_magnitude_vector", "DoRA"),
        ("lora_unet_conv_in.hada_w1_a", "LoHa"),
        ("lora_unet_conv_in.lokr_w1", "LoKr"),
        ("unet.conv_in.lora_B.weight", "LoRA for pictures"),
    ],
)
def test_what_generate_does_not_take_is_told(tmp_path: Path, key: str, kind: str) -> None:
    """Also of a file that has halves of a LoRA beside it."""
    path = tmp_path / "lora.safetensors"
    save_file({"unet.conv_in.lora_A.weight": torch.ones(2, 4), key: torch.ones(4, 2)}, path)
    found = inspect_file(path)
    assert found.kind == kind
    assert [note.startswith("generate --lora does not take it") for note in found.notes] == [True] * (
        kind in ("DoRA", "LoHa", "LoKr")
    )


def test_alpha_beside_the_weights_comes_first(folders: Path, tmp_path: Path) -> None:
    """As kohya's tools have it, which write no configuration."""
    lora, added = trained(tmp_path / "lora", lora_alpha=8)
    tensors = load_file(lora)
    downs = [key for key in tensors if key.endswith(".lora_A.weight")]
    tensors |= {key.removesuffix(".lora_A.weight") + ".alpha": torch.tensor(4.0) for key in downs}
    save_file(tensors, tmp_path / "kohya.safetensors")
    found = differences(folders, tmp_path / "kohya.safetensors", tmp_path / "made")
    expected, got = (sorted(float(one.norm()) for one in changes) for changes in (added.values(), found))
    assert got == pytest.approx([norm / 2 for norm in expected], rel=1e-4)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "PEFT": lambda key: f"base_model.model.{key}",
    "PEFT in a pipeline": lambda key: f"base_model.model.unet.{key}",
    "kohya": lambda key: (
        "lora_unet_"
        + key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight").replace(".", "_")
        + (".lora_down.weight" if key.endswith("lora_A.weight") else ".lora_up.weight")
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_other_trainers_are_read(folders: Path, tmp_path: Path, spelling: str) -> None:
    lora, added = trained(tmp_path / "lora", lora_alpha=8)
    renamed = {SPELLINGS[spelling](key): tensor for key, tensor in load_file(lora).items()}
    downs = [key for key in renamed if key.endswith(".lora_down.weight")]
    renamed |= {key.removesuffix(".lora_down.weight") + ".alpha": torch.tensor(8.0) for key in downs}
    save_file(renamed, tmp_path / "theirs.safetensors")
    assert inspect_file(tmp_path / "theirs.safetensors").kind == "MotionLoRA"
    found = differences(folders, tmp_path / "theirs.safetensors", tmp_path / "made")
    expected, got = (sorted(float(one.norm()) for one in changes) for changes in (added.values(), found))
    assert len(found) == len(added) and got == pytest.approx(expected, rel=1e-4)
