"""Image weights reach a new folder without being read: cloned, linked or streamed, and known again by samples."""

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inflate.checkpoint import convert, deflate_folder, has_fingerprint, weights_fingerprint
from inflate.checkpoint.fingerprint import tensors_fingerprint
from inflate.checkpoint.source import Weights, find_source, find_weights
from inflate.checkpoint.temporal import read_temporal_info
from inflate.checkpoint.writing import copy_file
from tests.inflater.tiny_models import CONFIGS

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image model whose weights take more than 1 MiB."""
    image_model_class, config = CONFIGS["sd15"]
    image_model_class(**config | {"block_out_channels": (64, 128)}).save_pretrained(tmp_path / "image")
    assert (tmp_path / "image" / WEIGHTS).stat().st_size > 1 << 20
    return tmp_path / "image"


def weights_of(folder: Path) -> Weights:
    return find_weights(find_source(folder))


def test_hard_links_are_for_large_files_on_request(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).chmod(0o600)
    convert(folder, tmp_path / "copied")
    convert(folder, tmp_path / "linked", hard_link=True)
    same = {name: os.path.samefile(folder / WEIGHTS, tmp_path / name / WEIGHTS) for name in ("copied", "linked")}
    assert same == {"copied": False, "linked": True}
    assert not os.path.samefile(folder / "config.json", tmp_path / "linked" / "config.json")
    assert (folder / WEIGHTS).stat().st_mode & 0o777 == 0o600, "a link's permissions are the source's"
    content = (folder / WEIGHTS).read_bytes()
    convert(folder, tmp_path / "linked", "vdm", force=True)  # which replaces the link, not what it points to
    assert (folder / WEIGHTS).read_bytes() == content
    deflate_folder(tmp_path / "linked", tmp_path / "back")
    assert (tmp_path / "back" / WEIGHTS).read_bytes() == content


def test_a_link_that_cannot_be_made_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "weights"
    source.write_bytes(os.urandom(3 << 20))

    def elsewhere(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    copy_file(source, tmp_path / "a" / "copy", hard_link=True)
    assert (tmp_path / "a" / "copy").read_bytes() == source.read_bytes()


def test_a_clone_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "weights", tmp_path / "copy"
    source.write_bytes(os.urandom(100))
    asked: list[int] = []

    def clone(into: int, request: int, of: int) -> int:
        asked.append(request)
        return os.sendfile(into, of, 0, 100)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    copy_file(source, target)
    assert asked == [0x40049409] and target.read_bytes() == source.read_bytes()


def test_samples_tell_weights_apart(folder: Path) -> None:
    known = weights_fingerprint(weights_of(folder))
    tensors = load_file(folder / WEIGHTS)
    assert tensors_fingerprint(tensors) == known and has_fingerprint(weights_of(folder), known)
    largest = max(tensors, key=lambda name: tensors[name].numel())
    assert tensors[largest].numel() * 4 > 3 * 4096, "samples are not all of it"
    smallest = min(tensors, key=lambda name: tensors[name].numel())
    for name, change in ((largest, slice(None)), (largest, slice(0, 1)), (largest, slice(-1, None)), (smallest, 0)):
        changed = {key: value.clone() for key, value in tensors.items()}
        changed[name].flatten()[change] += 1
        save_file(changed, folder / WEIGHTS)
        assert not has_fingerprint(weights_of(folder), known), (name, change)
    save_file({name: value.half() for name, value in tensors.items()}, folder / WEIGHTS)
    assert not has_fingerprint(weights_of(folder), known)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", "more": "metadata, other offsets"})
    assert has_fingerprint(weights_of(folder), known)


def test_fingerprints_of_all_bytes_still_hold(folder: Path, tmp_path: Path) -> None:
    """As the first version wrote them, and the bundled family has them."""
    tensors = load_file(folder / WEIGHTS)
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} F32 {tuple(value.shape)}\n".encode() + value.numpy().tobytes())
    assert has_fingerprint(weights_of(folder), digest.hexdigest())
    tensors[max(tensors)] += torch.ones(())
    save_file(tensors, folder / WEIGHTS)
    assert not has_fingerprint(weights_of(folder), digest.hexdigest())


def test_a_conversion_keeps_the_fingerprint_of_samples(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "video", temporal_only=True)
    info, _ = read_temporal_info(tmp_path / "video" / "temporal.safetensors")
    assert info.weights_fingerprint == weights_fingerprint(weights_of(folder))
