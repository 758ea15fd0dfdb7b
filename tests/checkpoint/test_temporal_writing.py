"""New layers are written one at a time, with holes for zeros, and read as if they had been made and saved together."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from inflate.checkpoint import temporal
from inflate.checkpoint.temporal import (
    TemporalInfo,
    read_temporal_info,
    read_temporal_tensors,
    write_new_layers,
    write_temporal,
)
from inflate.inflater import SCHEMES, Scheme, build_temporal_layers, find_sites, temporal_layer_makers

WIDE: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 640),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 8,
    "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


@pytest.mark.parametrize("name", ["make-a-video", "animatediff-v2", "video-ldm", "tune-a-video", "lean"])
def test_new_layers_are_those_that_are_built_together(name: str, tmp_path: Path) -> None:
    scheme: Scheme = SCHEMES[name]
    with torch.device("meta"):
        image_model = UNet2DConditionModel(**WIDE)
    sites, path = find_sites(image_model, scheme), tmp_path / "temporal.safetensors"
    torch.manual_seed(0)
    expected = build_temporal_layers(sites, 16, image_model).state_dict()
    torch.manual_seed(0)
    info = TemporalInfo(scheme, 16, "UNet2DConditionModel", "architecture", "weights")
    write_new_layers(path, temporal_layer_makers(sites, 16, image_model), info.to_metadata())
    found = read_temporal_tensors(path)
    assert found.keys() == expected.keys() and read_temporal_info(path)[0] == info
    for key, value in expected.items():
        assert torch.equal(found[key], value) and found[key].dtype == value.dtype, key


def test_blocks_of_zeros_are_gone_over_and_the_rest_is_written() -> None:
    class Counting(io.BytesIO):
        written = 0

        def write(self, part: Any, /) -> int:
            self.written += len(memoryview(part))
            return super().write(part)

    for ones in ([], [0], [5000], [1023, 1024], [9999], range(0, 10000, 700), range(10000)):
        tensor, file = torch.zeros(10000), Counting()
        tensor[list(ones)] = 1.0
        temporal._write_but_zeros(file, tensor)
        temporal._write_but_zeros(file, tensor[:3].reshape(3, 1))
        assert file.getvalue().ljust(40012, b"\0") == tensor.numpy().tobytes() + tensor[:3].numpy().tobytes()
        blocks = {one // 1024 for one in ones}
        assert file.written <= 4096 * len(blocks) + 12


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    """Whatever their order and dtypes; safetensors reads them back."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "b.weight": torch.randn(5, 3, generator=generator),
        "a.half": torch.randn(7, generator=generator).to(torch.float16),
        "c.brain": torch.randn(2, 2, generator=generator).to(torch.bfloat16),
        "d.scalar": torch.tensor(3.5),
        "e.count": torch.arange(4),
        "f.turned": torch.randn(4, 6, generator=generator).T,
        "g.none": torch.zeros(0, 3),
    }
    info = TemporalInfo(SCHEMES["make-a-video"], 16, "UNet2DConditionModel", "architecture", "weights")
    for name, order in (("one", list(tensors)), ("other", list(reversed(tensors)))):
        write_temporal(tmp_path / name, {key: tensors[key] for key in order}, info)
    one, other = ((tmp_path / name).read_bytes() for name in ("one", "other"))
    assert one == other
    found = load_file(tmp_path / "one")
    assert found.keys() == tensors.keys() and read_temporal_info(tmp_path / "one")[0] == info
    for key, value in tensors.items():
        assert torch.equal(found[key], value) and found[key].dtype == value.dtype and found[key].shape == value.shape
