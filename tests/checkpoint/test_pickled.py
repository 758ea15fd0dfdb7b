"""Pickles: refused unasked; asked for, tensors are read out of them and nothing in them is run."""

import os
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from inflate.cascade import Cascade
from inflate.checkpoint import convert, deflate_folder, find_source, inspect, load, load_image_model
from inflate.errors import InputError
from tests.cascade.foreign_pipelines import stable_diffusion
from tests.checkpoint.original_layouts import PREFIX, ldm_unet
from tests.inflater.tiny_models import build

BIN = "diffusion_pytorch_model.bin"
REFUSED = r"is a pickle, a kind of file that may run any code .* with --allow-pickle \(allow_pickle=True\)"


class Evil:
    """Makes a folder when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def same(one: Any, other: Any) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A whole training checkpoint of Stable Diffusion's kind, and its config beside it in a folder."""
    image_model = build("sd15")
    image_model.save_config(tmp_path / "config")
    weights = {PREFIX + name: tensor for name, tensor in ldm_unet(image_model.state_dict(), 1).items()}
    content = {"global_step": 470000, "state_dict": {**weights, "first_stage_model.quant_conv.bias": torch.ones(8)}}
    torch.save(content, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_when_asked_for(checkpoint: Path, tmp_path: Path, zipped: bool) -> None:
    if not zipped:
        content = torch.load(checkpoint, weights_only=True)
        torch.save(content, checkpoint, _use_new_zipfile_serialization=False)
    config = tmp_path / "config"
    with pytest.raises(InputError, match=REFUSED):
        find_source(checkpoint, config)
    source = find_source(checkpoint, config, allow_pickle=True)
    assert same(load_image_model(source), build("sd15"))
    assert inspect(checkpoint, config=config, allow_pickle=True).dtypes == ("F32",)
    convert(checkpoint, tmp_path / "video", num_frames=3, config=config, allow_pickle=True)
    assert same(load(tmp_path / "video").image_model, build("sd15"))  # safetensors by now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline whose denoiser is pickled."""
    folder = tmp_path / "image"
    build("sd15").save_pretrained(folder / "unet", safe_serialization=False)
    (folder / "model_index.json").write_text("{}")
    assert {path.name for path in (folder / "unet").iterdir()} == {"config.json", BIN}
    return folder


def test_a_folder_of_pickles_when_asked_for(folder: Path, tmp_path: Path) -> None:
    for attempt in (lambda: convert(folder, tmp_path / "video"), lambda: inspect(folder)):
        with pytest.raises(InputError, match=REFUSED):
            attempt()
    assert same(load_image_model(find_source(folder, allow_pickle=True)), build("sd15"))
    done = convert(folder, tmp_path / "video", num_frames=3, allow_pickle=True)
    assert done.num_files_copied == 2  # config.json and model_index.json; the weights are rewritten
    names = {str(path.relative_to(tmp_path / "video")) for path in (tmp_path / "video").rglob("*.*")}
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert names == {"model_index.json", "unet/config.json", weights, "unet/temporal.safetensors"}
    assert same(load(tmp_path / "video").image_model, build("sd15"))
    deflate_folder(tmp_path / "video", tmp_path / "again")
    assert same(load_image_model(find_source(tmp_path / "again")), build("sd15"))


def test_shards_and_variants_of_pickles(tmp_path: Path) -> None:
    image_model = build("sd15")
    image_model.save_pretrained(tmp_path / "image", safe_serialization=False, max_shard_size="20KB", variant="fp16")
    assert len(list((tmp_path / "image").glob("*.bin"))) > 1
    source = find_source(tmp_path / "image", variant="fp16", allow_pickle=True)
    assert same(load_image_model(source), image_model)
    convert(tmp_path / "image", tmp_path / "video", num_frames=3, allow_pickle=True)
    names = {path.name for path in (tmp_path / "video").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors", "temporal.safetensors"}


def test_safetensors_come_first(folder: Path) -> None:
    build("sd15", 5).save_pretrained(folder / "unet")
    (folder / "unet" / BIN).write_bytes(b"never read")
    assert same(load_image_model(find_source(folder, allow_pickle=True)), build("sd15", 5))


@pytest.mark.parametrize("suffix", ["ckpt", "pt", "bin", "pth"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"model.{suffix}"
    weights = ldm_unet(build("sd15").state_dict(), 1)
    for content in ({"state_dict": weights, "extra": Evil(tmp_path / "mark")}, Evil(tmp_path / "mark")):
        for zipped in (True, False):
            torch.save(content, file, _use_new_zipfile_serialization=zipped)
            with pytest.raises(
                InputError, match=r"is refused: it is a pickle of more than tensors.* nothing of it was run"
            ):
                find_source(file, allow_pickle=True)
            with pytest.raises(InputError, match=REFUSED):
                find_source(file)
    assert not (tmp_path / "mark").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "mark").exists(), "the pickle was harmless"


def test_code_in_a_folders_pickle_is_never_run(folder: Path, tmp_path: Path) -> None:
    torch.save({**build("sd15").state_dict(), "extra": Evil(tmp_path / "mark")}, folder / "unet" / BIN)
    with pytest.raises(InputError, match="is refused: it is a pickle of more than tensors"):
        convert(folder, tmp_path / "video", allow_pickle=True)
    assert not (tmp_path / "mark").exists() and not (tmp_path / "video").exists()


def test_damaged_and_empty_pickles_are_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cannot be read as a file of torch tensors: it is damaged or something else"):
        find_source(checkpoint, tmp_path / "config", allow_pickle=True)
    checkpoint.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as a file of torch tensors"):
        find_source(checkpoint, allow_pickle=True)
    for content in (torch.ones(2), {"step": 3}, {}):
        torch.save(content, checkpoint)
        with pytest.raises(InputError, match="holds no weights: it is no state dict of torch tensors"):
            find_source(checkpoint, allow_pickle=True)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_pipeline_with_pickles_is_told_what_to_do(tmp_path: Path, part: str) -> None:
    """And what the sentence says works."""
    folder, other = tmp_path / "pipeline", tmp_path / "other"
    stable_diffusion(folder)
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    pickle = folder / part / ("pytorch_model.bin" if part == "text_encoder" else BIN)
    torch.save(load_file(folder / part / f"{stem}.safetensors"), pickle)
    (folder / part / f"{stem}.safetensors").unlink()
    said = rf"{part} has its weights in a pickle alone \({pickle.name}\).*write the pipeline anew with diffusers"
    with pytest.raises(InputError, match=said) as caught:
        Cascade.from_pretrained(folder, device="cpu")("red sun", 1, num_inference_steps=1)
    assert f"DiffusionPipeline.from_pretrained({str(folder)!r}).save_pretrained(" in str(caught.value)
    assert ("inflate convert --allow-pickle" in str(caught.value)) == (part == "unet")
    diffusers.DiffusionPipeline.from_pretrained(folder).save_pretrained(other)
    if part == "unet":
        convert(folder, tmp_path / "video", num_frames=3, allow_pickle=True)
    for made in (other, *([tmp_path / "video"] if part == "unet" else [])):
        assert Cascade.from_pretrained(made, device="cpu")("red sun", 1, num_inference_steps=1).frames is not None
