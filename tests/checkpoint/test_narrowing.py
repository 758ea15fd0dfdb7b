"""Numbers beyond float16 become no infinity on the way to a file: they stay in their dtype, or are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

import inflate
from inflate.checkpoint.formats.motion_lora import add_lora
from inflate.checkpoint.narrowing import holds, narrow_copy, narrowed
from inflate.cli.app import main
from inflate.data.frames import build_frame_cache
from inflate.data.writing import write_video
from inflate.errors import InputError, Note
from inflate.train.export import save_half
from inflate.train.pictures import encode_all
from tests.models.tiny_family import tiny_unet

LARGE = 70_000.0


@pytest.mark.parametrize(
    ("value", "dtype", "wanted", "fits"),
    [
        (65_504.0, torch.float32, torch.float16, True),
        (65_519.0, torch.float32, torch.float16, True),  # rounds down
        (65_520.0, torch.float32, torch.float16, False),  # rounds to infinity
        (-LARGE, torch.float32, torch.float16, False),
        (LARGE, torch.bfloat16, torch.float16, False),
        (LARGE, torch.float32, torch.bfloat16, True),
        (3.4e38, torch.float32, torch.bfloat16, False),
        (1e39, torch.float64, torch.float32, False),
        (500.0, torch.float16, torch.float8_e4m3fn, False),
        (448.0, torch.float8_e4m3fn, torch.float16, True),
        (float("inf"), torch.float32, torch.float16, True),  # it was so before
        (float("nan"), torch.float32, torch.float16, True),
        (7.0, torch.int64, torch.float16, True),
    ],
)
def test_what_becomes_infinite_does_not_fit(value: float, dtype: torch.dtype, wanted: torch.dtype, fits: bool) -> None:
    tensor = torch.tensor([1.0, value], dtype=torch.float64).to(dtype)
    assert holds(wanted, tensor) == fits
    assert holds(wanted, torch.empty(0, dtype=dtype))


def test_only_what_does_not_fit_stays_wide() -> None:
    given = {"a": torch.tensor([1.5]), "b": torch.tensor([LARGE]), "n": torch.tensor([3])}
    with pytest.warns(Note, match="numbers that float16 cannot hold: 'b'"):
        made = narrowed(given, torch.float16)
    assert {name: one.dtype for name, one in made.items()} == {
        "a": torch.float16,
        "b": torch.float32,
        "n": torch.int64,
    }
    assert all(torch.equal(made[name].to(one.dtype), one) for name, one in given.items())


def with_large_weight() -> tuple[Any, str]:
    torch.manual_seed(0)
    model = tiny_unet()
    model.conv_out.weight.data[0, 0, 0, 0] = LARGE
    return model, "conv_out.weight"


def test_exports_in_half_precision_keep_it(tmp_path: Path) -> None:
    model, name = with_large_weight()
    before = {key: one.clone() for key, one in model.state_dict().items()}
    with pytest.warns(Note, match=f"'{name}'"):
        save_half(model, tmp_path / "plain")
    written = load_file(tmp_path / "plain/diffusion_pytorch_model.safetensors")
    assert written[name].dtype == torch.float32 and torch.equal(written[name], before[name])
    assert all(one.dtype == torch.float16 for key, one in written.items() if key != name)
    again: Any = UNet2DConditionModel.from_pretrained(tmp_path / "plain", torch_dtype=torch.float32)
    assert torch.equal(again.conv_out.weight, before[name])

    video_model = inflate.inflate(model, "lean", 2)
    with pytest.warns(Note, match=name):
        half = narrow_copy(video_model, torch.float16)
    inflate.save(half, tmp_path / "video")
    loaded = inflate.load(tmp_path / "video")
    assert torch.equal(loaded.image_model.conv_out.weight, before[name])
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items()), "the model itself stays"


def test_a_dtype_that_was_asked_for_is_refused(tmp_path: Path) -> None:
    model, name = with_large_weight()
    video_model = inflate.inflate(model, "lean", 2)
    with pytest.raises(InputError, match=f"'{name}' has numbers up to 7e.04, which float16 cannot hold"):
        inflate.save(video_model, tmp_path / "half", dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    inflate.save(video_model, tmp_path / "brain", dtype=torch.bfloat16)
    assert torch.isfinite(inflate.load(tmp_path / "brain").image_model.conv_out.weight).all()


def test_an_assembled_family_keeps_it_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.models.tiny_family import save_tiny_family

    family = save_tiny_family(tmp_path / "tiny", tiny_unet())
    file = next((family / "unet").glob("*.safetensors"))
    tensors = load_file(file)
    tensors["conv_out.weight"][0, 0, 0, 0] = LARGE
    save_file(tensors, file, metadata={"format": "pt"})
    parts = "\n".join(f'{role} = "{family / role}"' for role in ("unet", "scheduler", "vae"))
    (tmp_path / "family.toml").write_text(f'name = "tiny"\n[roles]\n{parts}\n')
    assert main(["assemble", str(tmp_path / "family.toml"), str(tmp_path / "out")]) == 0
    assert "numbers that float16 cannot hold: 'conv_out.weight'." in capsys.readouterr().err
    written = load_file(next((tmp_path / "out/unet").glob("*.safetensors")))
    assert torch.equal(written["conv_out.weight"], tensors["conv_out.weight"])


def test_a_lora_that_is_too_much_is_refused(tmp_path: Path) -> None:
    layer = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"
    weights = {
        f"{layer}.processor.to_q_lora.down.weight": torch.full((1, 4), 300.0),
        f"{layer}.processor.to_q_lora.up.weight": torch.full((4, 1), 300.0),
    }
    save_file(weights, tmp_path / "lora.safetensors")
    name = "down_blocks-0-motion_modules-0.transformer_blocks.0.attn1.to_q.weight"
    tensors = {name: torch.zeros(4, 4, dtype=torch.float16)}
    with pytest.raises(InputError, match=r"larger than torch.float16 can hold, at scale 1; take a smaller one"):
        add_lora(tensors, tmp_path / "lora.safetensors", 1.0)
    assert add_lora(tensors, tmp_path / "lora.safetensors", 0.5)[name].isfinite().all()


def test_encodings_are_kept_in_half_precision_only_where_that_holds_them(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/a.mp4", np.zeros((2, 16, 16, 3), np.uint8), 8)
    cache = build_frame_cache(tmp_path / "videos", 16, tmp_path / "cache", workers=0)

    def encode(pixels: Tensor) -> Tensor:
        return torch.full((len(pixels), 2), LARGE)

    with pytest.raises(InputError, match=r"The latents of frames 0 to 1 has numbers up to 7e\+04"):
        encode_all(cache, "latents", "key", encode)
