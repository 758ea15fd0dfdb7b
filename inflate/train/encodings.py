"""Latents and conditions of clips by the frozen encoders: computed once and kept on disk, or anew for every batch.

Both ways run the same code on one clip at a time, so that a cached run equals an uncached one bit for bit.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from inflate.bases import Autoencoder, Conditioner, Encoding
from inflate.data.clips import ClipSet, EncodingStore
from inflate.errors import InputError
from inflate.train.pictures import to_model_range
from inflate.train.step import QUIET
from inflate.video import unfold_frames

Condition = Literal["text", "empty", "image", "class", "nothing"]
CONDITIONS: tuple[str, ...] = ("text", "empty", "image", "class", "nothing")
_FRAMES_AT_ONCE = 8


def choose_condition(wanted: str, reads: str, captions: bool) -> Condition:
    """What a network is told about a clip.

    Args:
        wanted: of the recipe; ``auto`` is the caption where there are captions, a frame for a network that reads image
            embeddings, and the empty text for one that reads text and gets none.
        reads: what the image model's conditioner reads.
        captions: whether the clips have any.

    Raises:
        InputError: the image model cannot be told that.
    """
    possible = {"text": ("text", "empty"), "image": ("image",), "class": ("class",), "nothing": ("nothing",)}[reads]
    if wanted == "auto":
        return "text" if reads == "text" and captions else possible[-1]  # pyright: ignore[reportReturnType]
    if wanted not in possible:
        raise InputError(
            f"options.condition is {wanted!r}, and this image model reads {reads}; use 'auto' or {possible[0]!r}."
        )
    return wanted  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class EncoderPlace:
    """Where the frozen encoders run, and in which dtype; the autoencoder always computes in float32, since Stable
    Diffusion XL's overflows in float16."""

    device: torch.device
    dtype: torch.dtype = torch.float32


class ClipEncodings:
    """What the network sees and is told of each window of a :class:`ClipSet`.

    Args:
        clips: the windows.
        autoencoder, conditioner: the frozen encoders, not loaded.
        condition: see :func:`choose_condition`.
        place: where they run.
        folder: of the caches on disk; None encodes anew each time and keeps the encoders in memory.
    """

    def __init__(
        self,
        clips: ClipSet,
        autoencoder: Autoencoder,
        conditioner: Conditioner,
        condition: Condition,
        place: EncoderPlace,
        folder: Path | None,
    ) -> None:
        self.clips, self.autoencoder, self.conditioner, self.condition = clips, autoencoder, conditioner, condition
        self.place = place
        self._latents = self._told = None
        if folder is not None:
            self._latents = EncodingStore(folder, f"latents-{autoencoder.fingerprint()}")
            if condition != "nothing":
                self._told = EncodingStore(folder, f"{condition}-{conditioner.fingerprint()}-{place.dtype}")

    @property
    def cached(self) -> bool:
        """Whether encodings come from the disk."""
        return self._latents is not None

    def prepare(self, prompts: Sequence[str] = ()) -> dict[str, Encoding]:
        """Encode what is not on the disk yet, and let the encoders go where everything is.

        Returns the encodings of ``prompts`` by prompt, which stay in memory, on the CPU.
        """
        self._prepare_latents()
        told = self._prepare_told(prompts)
        if self.cached:
            self.autoencoder.release()
            self.conditioner.release()
        return told

    def latents(self, number: int, frames: np.ndarray | None = None) -> Tensor:
        """Latents (c, F, h, w) of a window, float32 on the CPU; ``frames`` are its, if they have been read already."""
        if self._latents is not None:
            return self._latents.get(self.clips.windows[number].key)["latents"]
        return self._encode_latents(number, frames)

    def told(self, number: int, frames: np.ndarray | None = None) -> Encoding:
        """What the network is told of a window, tensors of first size 1, on the CPU."""
        if self._told is not None:
            return self._told.get(self._told_name(number))
        return self._encode_told(number, frames)

    def unconditional(self) -> Encoding:
        """Guidance's other branch, tensors of first size 1, on the CPU."""
        return self._unconditional

    def _prepare_latents(self) -> None:
        if self._latents is None:
            self.autoencoder.load(self.place.device, torch.float32)
            return
        numbers = {window.key: number for number, window in enumerate(self.clips.windows)}
        missing = self._latents.missing(list(numbers))
        if not missing:
            return
        self.autoencoder.load(self.place.device, torch.float32)
        try:
            for key in _shown(missing, "latents"):
                self._latents.add(key, {"latents": self._encode_latents(numbers[key])})
        finally:  # also what was encoded before somebody stopped it
            self._latents.flush()
        self.autoencoder.release()

    def _prepare_told(self, prompts: Sequence[str]) -> dict[str, Encoding]:
        names: dict[str, int] = {}
        for number in range(len(self.clips.windows)):
            names.setdefault(self._told_name(number), number)
        missing = [] if self._told is None else self._told.missing(list(names))
        # The unconditional branch and the prompts of samples are few: they are encoded at every start.
        self.conditioner.load(self.place.device, self.place.dtype)
        self._unconditional = _on_cpu(self.conditioner.unconditional(1))
        if self._told is not None and missing:
            try:
                for name in _shown(missing, "conditions"):
                    self._told.add(name, self._encode_told(names[name]))
            finally:
                self._told.flush()
        texts = dict.fromkeys(prompts) if self.conditioner.reads in ("text", "class") else {}
        return {text: self._encode_text(text) for text in texts}

    def _told_name(self, number: int) -> str:
        window = self.clips.windows[number]
        if self.condition == "image":
            return window.key
        said = window.caption if self.condition in ("text", "class") else ""
        return hashlib.sha256(f"{self.condition} {said}".encode()).hexdigest()[:32]

    @torch.no_grad()
    def _encode_latents(self, number: int, frames: np.ndarray | None = None) -> Tensor:
        pixels = to_model_range(self.clips.read(number) if frames is None else frames)
        parts = [
            self.autoencoder.encode(part.to(self.place.device)).float().cpu() for part in pixels.split(_FRAMES_AT_ONCE)
        ]
        return unfold_frames(torch.cat(parts), len(pixels))[0].contiguous()

    @torch.no_grad()
    def _encode_told(self, number: int, frames: np.ndarray | None = None) -> Encoding:
        window = self.clips.windows[number]
        if self.condition == "image":
            return self._encode_frame(self.clips.read(number) if frames is None else frames)
        return self._encode_text(window.caption if self.condition in ("text", "class") else "")

    def _encode_frame(self, frames: np.ndarray) -> Encoding:
        """The frame in the middle stands for the clip (Make-A-Video, arXiv:2209.14792, section 3.4)."""
        middle = to_model_range(frames[len(frames) // 2][None])
        return _on_cpu(self.conditioner.encode([""], pictures=middle.to(self.place.device)))

    @torch.no_grad()
    def _encode_text(self, text: str) -> Encoding:
        return _on_cpu(self.conditioner.encode([text]))


def on_device(encoding: Encoding, device: torch.device) -> Encoding:
    """An encoding with every tensor on ``device``."""
    return {name: value.to(device) for name, value in encoding.items()}


def _on_cpu(encoding: Encoding) -> Encoding:
    return {name: value.detach().cpu().contiguous() for name, value in encoding.items()}


def _shown(names: Sequence[str], what: str) -> Iterable[str]:
    return track(names, f"{what} of {len(names)} clips", console=Console(stderr=True, quiet=QUIET.get()))
