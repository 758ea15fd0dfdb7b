"""Everything that may be wrong with a folder or a path is one sentence, and nothing is written then."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inflate.checkpoint import convert, deflate_folder, find_source, load, resolve_path
from inflate.checkpoint.header import read_header
from inflate.errors import InputError
from tests.inflater.tiny_models import build

WEIGHTS = "diffusion_pytorch_model.safetensors"


def _truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 10)


def _truncate_in_header(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 100)


def _empty(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")


def _no_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"PK\x03\x04" + bytes(100))


def _garbled(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((20).to_bytes(8, "little") + b"[" * 20)


def _only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")


def _no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _wrong_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 16}))


def _missing_weight(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["conv_out.bias"]
    save_file(tensors, folder / WEIGHTS)


def _unknown_weight(folder: Path) -> None:
    save_file({**load_file(folder / WEIGHTS), "conv_out.biaz": torch.ones(1)}, folder / WEIGHTS)


def _two_variants(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "diffusion_pytorch_model.fp16.safetensors")
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.ema.safetensors")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _other_class(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL"}')


def _no_class(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _nonsense_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "down_block_types": ["NoBlock2D", "DownBlock2D"]}))


BROKEN = {
    _truncate: r"diffusion_pytorch_model.safetensors is truncated: it has \d+ of \d+ bytes; copy or",
    _truncate_in_header: r"is truncated: its header ends after 92 of \d+ bytes; copy it again",
    _empty: "is truncated: a safetensors file has at least 8 bytes, this one 0",
    _no_safetensors: r"is not a safetensors file, nor any other kind of weights|is truncated",
    _garbled: "is not a safetensors file: its header cannot be read",
    _only_pickle: r"diffusion_pytorch_model.bin is a pickle, .* with --allow-pickle \(allow_pickle=True\)",
    _no_weights: "has no weights: diffusion_pytorch_model.safetensors is missing",
    _wrong_shape: r"do not fit its config.json: 'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight' "
    r"has shape \(8, 12\) and should have \(8, 16\)",
    _missing_weight: "do not fit its config.json: 'conv_out.bias' is missing",
    _unknown_weight: r"do not fit its config.json: 'conv_out.biaz' is unknown \(did you mean 'conv_out.bias'\?\)",
    _two_variants: r"has weights in several variants \((fp16, ema|ema, fp16)\) and none without",
    _no_config: "is no model's folder, without a network .* it has neither config.json nor one of unet, decoder",
    _other_class: "is an AutoencoderKL, which cannot be inflated; it must be one of UNet2DConditionModel, UNet2DModel",
    _no_class: "is not a diffusers config: it has no _class_name",
    _no_json: "is not readable as JSON",
    _nonsense_config: "does not describe a model that diffusers can build: NoBlock2D does not exist",
}


@pytest.mark.parametrize("breaking", BROKEN, ids=lambda function: function.__name__.strip("_"))
def test_a_broken_source_is_named_and_nothing_is_written(unet_folder: Path, tmp_path: Path, breaking: Any) -> None:
    breaking(unet_folder)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=BROKEN[breaking]):
        convert(unet_folder, tmp_path / "video")
    assert sorted(tmp_path.iterdir()) == before


def test_a_broken_inflated_folder_is_named(unet_folder: Path, tmp_path: Path) -> None:
    convert(unet_folder, tmp_path / "video")
    file = tmp_path / "video" / "temporal.safetensors"
    with pytest.raises(
        InputError, match=r"image is not inflated: it has no temporal.safetensors; make one with 'inflate"
    ):
        load(unet_folder)
    with pytest.raises(InputError, match=r"image is not inflated: it has no temporal.safetensors"):
        deflate_folder(unet_folder, tmp_path / "again")
    with pytest.raises(InputError, match="video is inflated already"):
        convert(tmp_path / "video", tmp_path / "twice")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"temporal.safetensors is truncated"):
        load(tmp_path / "video")
    shutil.copy(unet_folder / WEIGHTS, file)
    with pytest.raises(InputError, match="holds no temporal weights"):
        load(tmp_path / "video")
    metadata = dict(_metadata(whole, tmp_path))
    save_file({"stranger": torch.ones(1)}, file, metadata=metadata)
    with pytest.raises(
        InputError, match=r"temporal.safetensors: the temporal weights do not fit this model: \d+ missing"
    ):
        load(tmp_path / "video")
    save_file({"stranger": torch.ones(1)}, file, metadata={**metadata, "num_frames": "many"})
    with pytest.raises(InputError, match="is damaged: its header lacks or garbles"):
        load(tmp_path / "video")
    file.write_bytes(whole)
    build("inpainting").save_pretrained(tmp_path / "video")
    with pytest.raises(InputError, match="of another architecture"):
        load(tmp_path / "video")


def _metadata(content: bytes, folder: Path) -> dict[str, str]:
    (folder / "copy.safetensors").write_bytes(content)
    return read_header(folder / "copy.safetensors").metadata


def test_paths_that_are_no_model(unet_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder: .*nowhere"):
        find_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"is a file of a diffusers model; name its folder, {unet_folder}"):
        find_source(unet_folder / WEIGHTS)
    with pytest.raises(InputError, match=r"config.json is a file of a kind that inflate does not read"):
        find_source(unet_folder / "config.json")
    with pytest.raises(InputError, match=r"--config \(config=\) goes with a single file, and .*image is a folder"):
        find_source(unet_folder, config=unet_folder)
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match=r"model.ckpt is a pickle"):
        find_source(tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="no bundled family 'nobody'"):
        resolve_path("bundled:nobody")
