"""The noise that sampling starts from: drawn frame by frame, so that it follows from the seed and a frame's number."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inflate.bases.prediction import scheme_of
from inflate.diffusion.long_noise import reschedule_noise
from inflate.diffusion.noise import mix_noise
from inflate.errors import InputError
from inflate.sampling.loop import Generators
from inflate.sampling.windows import Windows


def draw_noise(shape: Sequence[int], generator: Generators, device: torch.device) -> Tensor:
    """Standard normal float32 of ``shape``, one draw per first index, from one generator or one per first index.

    Drawn one by one, so that the first items are the same whatever their number.
    """
    generators = _one_each(generator, shape[0])
    where = [device if one is None else one.device for one in generators]
    draws = [torch.randn(tuple(shape[1:]), generator=one, device=at) for one, at in zip(generators, where, strict=True)]
    return torch.stack([draw.to(device) for draw in draws])


class VideoNoise:
    """Standard normal noise of a video's frames, drawn as far as it is asked for and let go of behind that.

    Frames correlate by ``share``, see ``mix_noise``; the first frames of a longer video have the same noise.
    """

    def __init__(
        self, picture: Sequence[int], share: float, generator: torch.Generator | None, device: torch.device
    ) -> None:
        """``picture`` is the shape (c, h, w) of a frame; noise is drawn where ``generator`` is."""
        self.picture, self.share, self.generator, self.device = tuple(picture), share, generator, device
        self._shared: Tensor | None = None
        self._kept: list[Tensor] = []
        self._first = 0  # number of the first frame kept

    def __call__(self, first: int, count: int) -> Tensor:
        """Noise (1, c, count, h, w) of frames from ``first`` on, which never falls from call to call."""
        assert first >= self._first, "frames are asked for in order"
        if self.share and self._shared is None:
            self._shared = self._drawn()
        while self._first + len(self._kept) < first + count:
            own = self._drawn()
            self._kept.append(own if self._shared is None else mix_noise(own, self._shared, self.share))
        del self._kept[: first - self._first]
        self._first = first
        return torch.cat(self._kept[:count], dim=2)

    def _drawn(self) -> Tensor:
        return draw_noise((1, *self.picture), self.generator, self.device)[:, :, None]


def frame_noise(
    model: Any,
    batch: int,
    frames: int | None,
    generator: Generators,
    device: torch.device,
    fps: float | None = None,
    repeat: Windows | None = None,
    picture: Sequence[int] | None = None,
) -> Tensor:
    """Noise that ``model`` starts videos (B, c, F, h, w) from, or pictures (B, c, h, w) for ``frames`` None.

    Args:
        model: whose scheme says for ``fps`` how much of their noise frames share; an image model's share none.
        batch: number of videos.
        frames: of each.
        generator: one, from which videos draw one after the other, or one each.
        device: where the noise is wanted.
        fps: frames per second.
        repeat: beyond its first window a frame takes the noise of an earlier one (see ``reschedule_noise``).
        picture: (c, h, w) of a frame; None is the model's own size.

    Raises:
        InputError: another number of generators, or a model that has no size of its own.
    """
    picture = tuple(picture) if picture is not None else _own_picture(model)
    if frames is None:
        return draw_noise((batch, *picture), generator, device)
    scheme = scheme_of(model)
    share = 0.0 if scheme is None else scheme.noise_share(fps)
    videos = []
    for one in _one_each(generator, batch):
        noise = VideoNoise(picture, share, one, device)(0, frames if repeat is None else min(frames, repeat.size))
        videos.append(noise if repeat is None else reschedule_noise(noise, frames, repeat.stride, one))
    return torch.cat(videos)


def _one_each(generator: Generators, count: int) -> Sequence[torch.Generator | None]:
    one_each = [*generator] if isinstance(generator, Sequence) else [generator] * count
    if len(one_each) != count:
        raise InputError(f"{count} videos need as many generators, or one; got {len(one_each)}.")
    return one_each


def _own_picture(model: Any) -> tuple[int, ...]:
    size = model.config.sample_size
    if size is None:
        raise InputError("The decoder's config has no sample_size; set it to the side of its latents.")
    height, width = (size, size) if isinstance(size, int) else size
    return int(model.config.in_channels), height, width
