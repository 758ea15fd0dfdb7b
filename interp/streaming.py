"""↑F for videos of any length: known frames come in chunks, all frames go out, a window at a time."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.sampling.noise import VideoNoise
from inflate.sampling.windows import frames_of
from interp.sampling import interpolate_frames, spread_frames


def interpolate_chunks(
    model: Any,
    vae: Any | None,
    scheduler: Any,
    chunks: Iterable[Tensor],
    skip: int,
    embeds_of: Callable[[float], Tensor | None],
    fps: float,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    generator: torch.Generator,
    frame_decoder: Any | None = None,
) -> Iterator[Tensor]:
    """Multiply a video's frame rate, holding one window of it at a time.

    The result is that of ``interpolate_frames`` on the whole video; gaps wider than a window are filled one by one.

    Arguments are those of ``interpolate_frames``; ``chunks``: known frames (3, n, H, W), in order; ``embeds_of``: a
    window's image embedding (1, D), or None, by its middle in seconds; ``fps``: that of known frames. Yields
    (3, m, H, W) float32 on the CPU, ``(F - 1) * skip + 1`` frames in all.
    """
    if skip < 2:
        raise InputError(f"Multiplying a frame rate takes a skip of 2 or more, got {skip}.")
    gaps = max(1, (model.num_frames - 1) // skip)  # from one window's first known frame to its last
    share = model.scheme.noise_share(fps * skip)
    noise_of = cache(partial(VideoNoise, share=share, generator=generator, device=model.device))  # frames have one size

    def between(known: list[Tensor], first: int) -> Tensor:
        """All frames (3, n, H, W) from known frame ``first`` on."""
        sparse, mask = spread_frames(torch.stack(known, dim=1)[None], skip)
        return interpolate_frames(
            model,
            vae,
            scheduler,
            sparse,
            mask,
            embeds_of((first + (len(known) - 1) / 2) / fps),
            fps * skip,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generator=generator,
            frame_decoder=frame_decoder,
            draw=lambda frames, picture: noise_of(picture)(first * skip, frames),
        )[0].cpu()

    held: list[Tensor] = []  # known frames; those up to `done` have been yielded, with what lies between them
    first = done = 0  # number of the first one held, and of the last one yielded
    for frame in frames_of(chunks):
        held.append(frame)
        if (last := first + len(held) - 1) == 0:
            yield frame[:, None]
        elif last - done == gaps:
            yield between(held[done - first :], done)[:, 1:]
            del held[: done - first]  # the last window may reach back into this one
            first, done = done, last
    if (last := first + len(held) - 1) > done:
        begin = max(first, last - gaps)
        yield between(held[begin - first :], begin)[:, (done - begin) * skip + 1 :]
