"""Files in, files out: every tensor bit for bit, and the numbers of tensors that published files have."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file

from inflate.checkpoint import load
from inflate.checkpoint.formats import LAYOUTS, export_motion, import_motion, motion_keys
from inflate.inflater import build_temporal_layers, find_sites, meta_image_model
from tests.checkpoint.formats.files import VERSIONS, adapter, as_animatediff, as_hotshot, image_model, write
from tests.inflater.test_sites import TRUE_CONFIGS


def assert_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("version", VERSIONS)
def test_animatediff_there_and_back(version: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {key: one.to(dtype) for key, one in as_animatediff(dict(adapter(version).state_dict())).items()}
    image_model(version).save_pretrained(tmp_path / "image")
    file = write(tmp_path / "module.safetensors", tensors, dtype)
    done = import_motion(file, tmp_path / "image", tmp_path / "video")
    assert done.scheme == version and not done.ignored and done.used == len(tensors)
    export_motion(tmp_path / "video", tmp_path / "again.safetensors", "animatediff")
    assert_same_tensors(load_file(tmp_path / "again.safetensors"), tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("version", VERSIONS)
def test_motion_adapter_there_and_back(version: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs: Any = adapter(version)
    with torch.no_grad():
        for name, table in theirs.named_buffers():
            table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(len(name))))
    theirs.to(dtype).save_pretrained(tmp_path / "adapter", variant="fp16" if dtype == torch.float16 else None)
    image_model(version).save_pretrained(tmp_path / "image")
    import_motion(tmp_path / "adapter", tmp_path / "image", tmp_path / "video")
    export_motion(tmp_path / "video", tmp_path / "again", "motion-adapter")
    again = MotionAdapter.from_pretrained(tmp_path / "again", torch_dtype=dtype)
    assert_same_tensors(dict(again.state_dict()), dict(theirs.state_dict()))
    config = {key: value for key, value in theirs.config.items() if not key.startswith("_")}
    found = {key: value for key, value in again.config.items() if not key.startswith("_")}
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()} == {
        k: tuple(v) if isinstance(v, list) else v for k, v in config.items()
    }


def test_hotshot_there_and_back(tmp_path: Path) -> None:
    tensors = as_hotshot(as_animatediff(dict(adapter("animatediff-sdxl").state_dict())))
    tensors = {key: one[:, :24] if key.endswith("positional_encoding") else one for key, one in tensors.items()}
    image_model("animatediff-sdxl").save_pretrained(tmp_path / "image")
    file = write(tmp_path / "module.safetensors", tensors)
    done = import_motion(file, tmp_path / "image", tmp_path / "video")
    assert (done.scheme, done.max_frames) == ("hotshot-xl", 24)
    assert load(tmp_path / "video").scheme.field("norm_over_video") is False, "its own code normalises each frame"
    export_motion(tmp_path / "video", tmp_path / "again.safetensors", "hotshot")
    assert_same_tensors(load_file(tmp_path / "again.safetensors"), tensors)


@pytest.mark.parametrize(
    ("config", "scheme", "numbers"),
    [
        ("sd15_unet", "animatediff-v1", {"animatediff": 560, "motion-adapter": 540}),
        ("sd15_unet", "animatediff-v2", {"animatediff": 588, "motion-adapter": 567}),
        ("sdxl_unet", "animatediff-sdxl", {"animatediff": 420, "motion-adapter": 405, "hotshot": 420}),
    ],
)
def test_published_files_have_as_many_tensors(config: str, scheme: str, numbers: dict[str, int]) -> None:
    import json

    from diffusers import UNet2DConditionModel

    image = meta_image_model(UNet2DConditionModel, json.loads((TRUE_CONFIGS / f"{config}.json").read_text()))
    with torch.device("meta"):
        layers = build_temporal_layers(find_sites(image, scheme), 16, image)
    names = list(layers.state_dict())
    for to, number in numbers.items():
        keys = {LAYOUTS[to].from_ours(name) for name in names}
        assert None not in keys and len(keys) == number
        layout, ours, rest = motion_keys([key for key in keys if key is not None])
        assert layout is LAYOUTS[to] and set(ours) == set(names) and not rest
