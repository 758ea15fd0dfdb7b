"""Folders that appear whole or not at all."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inflate.components import DIFFUSERS_STEM
from inflate.errors import InputError
from inflate.places import check_place
from inflate.staging import flush, put_in_place, staged

if TYPE_CHECKING:
    from torch import Tensor

_FULL = (errno.ENOSPC, errno.EDQUOT)
# A folder with one of these is one of ours or diffusers', and may be replaced with force; any other is left alone.
_MODEL_FILES = ("model_index.json", "config.json", "temporal.safetensors")
# What a model is made of, under any name that loaders look for: where one is written anew, older parts beside it would
# be read too.
_PARTS = ("config.json", DIFFUSERS_STEM, "temporal.safetensors", "model.", "model-", "pytorch_model")
_FICLONE = 0x40049409  # Linux: let a file have the blocks of another one (btrfs, XFS, bcachefs) until either is written
_COPIED_AT_ONCE = 1 << 28  # between two looks at whether the process is asked to end
_LINKED_BYTES = 1 << 20  # smaller files, which people edit by hand, are never hard links


def check_destination(destination: Path, force: bool) -> None:
    """Raise `InputError` unless `destination` can be made, or is an empty folder or, with `force`, a model's folder."""
    check_place(destination)
    if not (destination.exists() or destination.is_symlink()):
        return
    if not destination.is_dir():
        raise InputError(f"{destination} exists and is not a folder; choose another name")
    if not any(destination.iterdir()):
        return
    if not force:
        raise InputError(f"{destination} exists already; choose another name, or replace it with --force (force=True)")
    if not any((destination / name).exists() for name in _MODEL_FILES):
        raise InputError(
            f"{destination} exists and is no model folder, so it is not replaced even by force; choose another name"
        )


@contextmanager
def new_folder(
    destination: Path, force: bool = False, num_bytes: int = 0, copied: Collection[Path] = ()
) -> Iterator[Path]:
    """A temporary folder beside `destination` that takes its place when the block ends, or vanishes if it fails.

    Args:
        destination: the folder to make.
        force: write into a model folder that is there. Models in it that are written anew are replaced; every other
            file stays.
        num_bytes: how much will be written, to refuse a disk that is too small before writing.
        copied: files in it that are copies of others, which stay; they are not waited for until they are on the disk.

    Raises:
        InputError: `destination` is taken, another process writes it, or the disk is full; nothing of what was begun
            is left then.
    """
    destination = destination.absolute()
    check_destination(destination, force)
    try:
        with staged(destination) as partial:
            check_destination(destination, force)  # as it is now that nobody else writes it
            _check_room(destination, num_bytes)
            yield partial
            finish_folder(partial, destination, copied)
    except OSError as error:
        if error.errno in _FULL:
            raise _full(destination) from error
        raise
    except Exception as error:  # safetensors, written in Rust, has a class of its own for a full disk
        if "(os error 28)" in str(error):
            raise _full(destination) from error
        raise


def finish_folder(partial: Path, destination: Path, copied: Collection[Path] = ()) -> None:
    """Let a folder that is written take its place, with what it does not replace of the one that is there."""
    give_usual_permissions(partial)
    kept = _keep_others(destination, partial)
    wait_for_disk(partial, {partial / path for path in (*copied, *kept)})
    put_in_place(partial, destination)
    flush(destination.parent)


def _check_room(destination: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(destination.parent).free
    if num_bytes > free:
        raise InputError(
            f"the disk of {destination} is full: "
            f"{_size(num_bytes)} are needed and {_size(free)} are free; nothing was written"
        )


def _full(destination: Path) -> InputError:
    return InputError(f"the disk of {destination} is full; free some space and try again (nothing was written)")


def copy_file(source: Path, target: Path, hard_link: bool = False) -> None:
    """Copy a file (what it points to, if a symbolic link) without ever holding it in memory; parents are made.

    Where the file system can, the copy has the blocks of the source until either is written, which takes no time and
    no space. With ``hard_link``, a file of 1 MiB or more becomes a second name of the source, if it lies on the same
    file system: writing into one then changes the other.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if hard_link and source.stat().st_size >= _LINKED_BYTES:
        try:
            os.link(os.path.realpath(source), target)
            return
        except OSError:  # another file system, or one without links
            pass
    with open(source, "rb") as reader, open(target, "wb") as writer:
        if _clone(reader.fileno(), writer.fileno()) or _copy_within(reader.fileno(), writer.fileno()):
            return
    shutil.copyfile(source, target)


def _clone(source: int, target: int) -> bool:
    """Whether ``target`` could be given the blocks of ``source`` (file descriptors)."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _copy_within(source: int, target: int) -> bool:
    """Whether the kernel could copy all from one file descriptor to the other, empty one, by itself."""
    if not hasattr(os, "copy_file_range"):
        return False
    left = os.fstat(source).st_size
    try:
        while left and (count := os.copy_file_range(source, target, min(left, _COPIED_AT_ONCE))):
            left -= count
    except OSError as error:  # between some file systems, and in older kernels
        if error.errno in _FULL:
            raise
        return False
    return not left


def write_model(
    folder: Path,
    config: Mapping[str, Any],
    tensors: "Mapping[str, Tensor]",
    scheduler: Mapping[str, Any] | None = None,
) -> None:
    """Write an image model as diffusers does: its config.json, and its weights in one file; `folder` is made.

    The config of a `scheduler` goes into a folder of that name inside.
    """
    from safetensors.torch import save_file

    _write_json(folder / "config.json", config)
    if scheduler is not None:
        _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / f"{DIFFUSERS_STEM}.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(values), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders as paths relative to it; hidden folders (.git, .cache) are left out."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.parts[:-1])]


def _keep_others(old: Path, new: Path) -> list[Path]:
    """Give a folder that is to take the place of ``old`` all files of ``old`` that it does not replace itself.

    A model is replaced whole by the one that is written into its own folder: other shards and variants of its weights
    would be loaded beside the new ones. Returns what was kept, relative to both.
    """
    if old.is_symlink() or not old.is_dir():
        return []  # a link is replaced, and what it points to is left alone
    kept = []
    for path in sorted(old.rglob("*")):
        place = path.relative_to(old)
        if (path.is_dir() and not path.is_symlink()) or _is_there(new / place):
            continue
        if (new / place.parent).is_dir() and path.name.startswith(_PARTS) and _holds_a_model(new / place.parent):
            continue
        (new / place).parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            os.symlink(os.readlink(path), new / place)
        else:
            copy_file(path, new / place, hard_link=True)
            shutil.copystat(path, new / place)
        kept.append(place)
    return kept


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _holds_a_model(folder: Path) -> bool:
    return any(one.is_file() and one.name.startswith(_PARTS) for one in folder.iterdir())


def give_usual_permissions(folder: Path) -> None:
    """What the user's umask gives new files: safetensors makes its own readable by their owner alone."""
    mode = folder.stat().st_mode & 0o666  # the folder was made under the umask
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_nlink == 1:  # the permissions of a hard link are its other names' too
            path.chmod(mode)


def wait_for_disk(folder: Path, copied: Collection[Path] = ()) -> None:
    """Wait until the disk has a folder with all that is in it, but for files that are copies of others."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir() or path not in copied:
            flush(path)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2f} MB"
