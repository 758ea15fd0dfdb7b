"""Force replaces the model that is written anew, and loses nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import inflate
from inflate.checkpoint import convert, load, save
from inflate.errors import InputError
from inflate.inflater import inflate as inflated
from tests.bases.families import build as pipeline
from tests.inflater.tiny_models import build, perturb
from tests.models.tiny_family import save_tiny_family, tiny_unet


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_letters(folder: Path) -> dict[str, bytes]:
    """Somebody's own files, at the top, beside the weights, in a folder of their own, hidden, and a link."""
    for place in ("notes.txt", "unet/training.log", "photos/cat.png", ".gitattributes", "photos/deep/er/x.bin"):
        path = folder / place
        if path.parent.name != "unet" or path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(place.encode() * 9)
    (folder / "latest").symlink_to("notes.txt")
    return {name: data for name, data in contents(folder).items() if data in (name.encode() * 9, b"notes.txt" * 9)}


def test_saving_into_a_pipeline_writes_its_network_and_touches_nothing_else(tmp_path: Path) -> None:
    folder = pipeline("stable-diffusion", tmp_path / "pipeline")
    convert(folder, tmp_path / "video", num_frames=3)
    video, letters = tmp_path / "video", with_letters(tmp_path / "video")
    before = contents(video)
    model = load(video)
    perturb(model, seed=3)
    with pytest.raises(InputError, match="exists already"):
        save(model, video)
    assert contents(video) == before
    assert save(model, video, force=True) == video
    after = contents(video)
    assert after.keys() == before.keys() and letters.items() <= after.items()
    changed = {name for name in before if before[name] != after[name]}
    assert "unet/temporal.safetensors" in changed and all(name.startswith("unet/") for name in changed)
    again = load(video).temporal_state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.temporal_state_dict().items())
    assert inflate.Cascade.from_pretrained(video, device="cpu").stages


def test_another_network_is_not_written_into_a_pipeline(tmp_path: Path) -> None:
    folder = pipeline("pixart", tmp_path / "pipeline")
    before = contents(folder)
    with pytest.raises(InputError, match="network is a PixArtTransformer2DModel, and the model to save is a UNet2DCon"):
        save(inflated(build("sd15"), num_frames=3), folder, force=True)
    assert contents(folder) == before


def test_a_model_folder_keeps_what_lies_beside_the_model(unet_folder: Path, tmp_path: Path) -> None:
    """Other shards and variants of the weights go, because they would be loaded beside the new ones."""
    video = tmp_path / "video"
    convert(unet_folder, video, num_frames=3)
    letters = with_letters(video)
    stale = ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors.index.json")
    for name in stale:
        (video / name).write_bytes(b"{}")
    convert(unet_folder, video, "lean", num_frames=3, force=True)
    after = contents(video)
    assert letters.items() <= after.items() and not set(stale) & set(after)
    assert load(video).scheme.name == "lean" and (video / "latest").is_symlink()


def test_a_cascade_saved_over_another_keeps_foreign_files(tmp_path: Path) -> None:
    cascade = inflate.Cascade.from_pretrained(save_tiny_family(tmp_path / "family", tiny_unet()), device="cpu")
    cascade.save_pretrained(tmp_path / "saved")
    letters = with_letters(tmp_path / "saved")
    cascade.save_pretrained(tmp_path / "saved", overwrite=True)
    after: dict[str, Any] = contents(tmp_path / "saved")
    assert letters.items() <= after.items()
    assert json.loads(after["model_index.json"])["_class_name"] == "Cascade"
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_image_weights_keep_the_dtype_of_their_files(tmp_path: Path, dtype: torch.dtype) -> None:
    """Byte for byte, where nothing has changed; a weight that is no number of that dtype any more is not rounded."""
    folder, file = tmp_path / "video", "diffusion_pytorch_model.safetensors"
    build("sd15").to(dtype).save_pretrained(tmp_path / "image")
    convert(tmp_path / "image", folder, num_frames=3)
    before, model = load_file(folder / file), load(folder)
    assert model.dtype == torch.float32 and {one.dtype for one in before.values()} == {dtype}
    for place in (folder, tmp_path / "again"):
        save(model, place, force=True)
        after = load_file(place / file)
        assert after.keys() == before.keys() and all(
            after[name].dtype == dtype and torch.equal(after[name], before[name]) for name in before
        )
    assert all(one.dtype == torch.float32 for one in model.image_model.state_dict().values()), "it is left alone"
    save(model, tmp_path / "asked", dtype=torch.float32)
    assert {one.dtype for one in load_file(tmp_path / "asked" / file).values()} == {torch.float32}
    with torch.no_grad():
        model.image_model.get_parameter("conv_out.bias").add_(1 / 3)
    save(model, folder, force=True)
    trained = load_file(folder / file)
    assert all(torch.equal(trained[name], value) for name, value in model.image_model.state_dict().items())
    assert load(folder, dtype=dtype).stored_dtype is None, "asked for, it is the model's own"
