"""Drawing pictures from a frame cache, and encodings of all its frames computed once."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from inflate.checkpoint.narrowing import holds
from inflate.data import FrameCache, build_frame_cache
from inflate.data.listing.report import captions_missing
from inflate.errors import InputError
from inflate.staging import new_file
from inflate.train.recipe import DataOptions


def open_data(options: DataOptions, captions: bool = False) -> FrameCache:
    """The frame cache of a recipe's data, built on first use (two processes); says what became of every file.

    ``options.path`` may be a built cache itself, so that frames alone can be carried to another machine. ``captions``:
    the recipe trains on them, so those that are empty are counted.

    Raises:
        InputError: nothing there that can be used, or nothing in the recipe's split.
    """
    tell = partial(Console(stderr=True).print, markup=False, highlight=False, soft_wrap=True)
    if (Path(options.path) / "frames.bin").is_file():
        cache = FrameCache.open(options.path)
        if cache.size != options.size:
            raise InputError(f"{options.path} holds frames of {cache.size} px; the recipe wants {options.size}.")
    else:
        folder = Path(options.cache) / f"frames-{options.size}" if options.cache else None
        cache = build_frame_cache(options.path, options.size, folder, workers=2, tell=tell)
    numbers = cache.select(split=options.split)
    if not numbers:
        others = " and ".join(sorted({repr(entry.split) for entry in cache.entries}))
        raise InputError(
            f"{options.path} has nothing in its {options.split} split: by its folders, shards or tables all of it is "
            f"{others}; set data.split, or rename them."
        )
    said = [f"{options.path}: {cache.report.sentence()}"]
    if captions:
        entries = [cache.entries[number] for number in numbers if cache.entries[number].kind in options.kinds]
        said += captions_missing([entry.caption for entry in entries], "entries")
    for line in said:
        tell(line)
    return cache


def open_clips(options: DataOptions) -> FrameCache:
    """As :func:`open_data`, for a recipe whose step draws clips and nothing else.

    Raises:
        InputError: as there, or ``kinds`` leaves clips out.
    """
    if "clip" not in options.kinds:
        raise InputError(f"data.kinds is {list(options.kinds)}, and this recipe trains on clips; add 'clip' to it.")
    return open_data(options)


def to_model_range(frames: np.ndarray) -> Tensor:
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3))).float() / 127.5 - 1


class PictureSampler:
    """Draws single pictures: a thing (name), one of its entries, one of that entry's frames, each uniformly.

    ``draw(update, first, count)`` depends on the seed and its arguments only. Names inside one draw are distinct as
    long as ``count`` allows, which a contrastive loss needs.
    """

    def __init__(self, cache: FrameCache, options: DataOptions, seed: int) -> None:
        self.cache, self.seed = cache, seed
        by_name: dict[str, list[int]] = {}
        for number in cache.select(split=options.split):
            if cache.entries[number].kind in options.kinds:
                by_name.setdefault(cache.entries[number].name, []).append(number)
        if not by_name:
            raise InputError(f"{options.path} has no {' or '.join(options.kinds)} in its {options.split} split.")
        self.things = [by_name[name] for name in sorted(by_name)]

    def draw(self, update: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Entry numbers (count,) and rows of the frame array (count,)."""
        rng = np.random.default_rng((self.seed, update, first))
        things = rng.choice(len(self.things), size=count, replace=count > len(self.things))
        entries = np.array([self.things[t][rng.integers(len(self.things[t]))] for t in things])
        rows = np.array([self._row(entry, rng) for entry in entries])
        return entries, rows

    def _row(self, entry: int, rng: np.random.Generator) -> int:
        found = self.cache.entries[entry]
        return found.start + int(rng.integers(found.num_frames))

    def pixels(self, rows: np.ndarray) -> Tensor:
        """Frames by row, float32 (count, 3, S, S) in [-1, 1]."""
        return to_model_range(self.cache.frames[rows])


def caption_variant(caption: str, keywords: tuple[str, ...], rng: np.random.Generator) -> str:
    """A caption as people write prompts: the name alone, the name and some keywords, or keywords alone."""
    kind = rng.random()
    if not keywords or kind < 0.55:
        return caption
    some = [str(k) for k in rng.permutation(np.array(keywords, dtype=object))[: rng.integers(1, 4)]]
    return ", ".join([caption, *some]) if kind < 0.9 else ", ".join(some)


def weights_key(*folders: str | Path) -> str:
    """A short fingerprint of the files of model folders: names, sizes and contents."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.safetensors")):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def encode_all(
    cache: FrameCache, name: str, key: str, encode: Callable[[Tensor], Tensor], batch_size: int = 128
) -> np.ndarray:
    """``encode`` of every frame of the cache, computed once and kept beside it as float16 ``(total_frames, ...)``.

    Args:
        cache: the frames.
        name: what the encoding is called in file names.
        key: fingerprint of whatever decides the result beside the frames (the encoder's weights).
        encode: float32 pixels (B, 3, S, S) in [-1, 1] -> (B, ...).
        batch_size: frames at a time.

    Raises:
        InputError: numbers that float16 cannot hold, or the disk is full.
    """
    stamp = hashlib.sha256((cache.folder / "index.json").read_bytes()).hexdigest()[:8]
    target = cache.folder / f"{name}-{key}-{stamp}.npy"
    if target.is_file():
        return np.load(target, mmap_mode="r")
    parts: list[np.ndarray] = []
    starts = range(0, cache.num_frames, batch_size)
    for start in track(starts, description=f"{name} of {cache.num_frames} frames", console=Console(stderr=True)):
        with torch.no_grad():
            made = encode(to_model_range(cache.frames[start : start + batch_size]))
        if not holds(torch.float16, made):
            raise InputError(
                f"The {name} of frames {start} to {start + len(made) - 1} has numbers up to "
                f"{float(made.abs().max()):.3g}, and float16, in which it is kept, ends at 65504; take another encoder."
            )
        parts.append(made.float().cpu().numpy().astype(np.float16))
    try:
        with new_file(target, overwrite=True) as unfinished:
            np.save(unfinished, np.concatenate(parts))
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}); free some space.") from error
    return np.load(target, mmap_mode="r")


def write_json(path: Path, content: dict) -> None:
    """Write JSON with a final newline, creating the folder."""
    with new_file(path, overwrite=True) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
