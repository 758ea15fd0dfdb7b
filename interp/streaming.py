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

OnPart = Callable[[int, Tensor, Tensor, float], Tensor]
"""(step, timestep, a window's latents, how many gaps between known frames are filled) -> latents to go on with."""


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
    on_part: OnPart | None = None,
) -> Iterator[Tensor]:
    """Multiply a video's frame rate, holding one window of it at a time.

    The result is that of ``interpolate_frames`` on the whole video; gaps wider than a window are filled one by one.

    Arguments are those of ``interpolate_frames``; ``chunks``: known frames (3, n, H, W), in order; ``embeds_of``: a
    window's image embedding (1, D), or None, by its middle in seconds; ``fps``: that of known frames; ``on_part`` as
    said there. Yields (3, m, H, W) float32 on the CPU, ``(F - 1) * skip + 1`` frames in all.
    """
    if skip < 2:
        raise InputError(f"Multiplying a frame rate takes a skip of 2 or more, got {skip}.")
    gaps = max(1, (model.num_frames - 1) // skip)  # from one window's first known frame to its last
    share = model.scheme.noise_share(fps * skip)
    noise_of = cache(partial(VideoNoise, share=share, generator=generator, device=model.device))  # frames have one size

    for known, first, done in _spans(chunks, gaps):
        gap = first + len(known) - 1 - done

        def on_step(step: int, timestep: Tensor, sample: Tensor, done: int = done, gap: int = gap) -> Tensor:
            filled = done + gap * (step + 1) / num_inference_steps
            return sample if on_part is None else on_part(step, timestep, sample, filled)

        def draw(frames: int, picture: tuple[int, ...], first: int = first) -> Tensor:
            return noise_of(picture)(first * skip, frames)

        sparse, mask = spread_frames(torch.stack(known, dim=1)[None], skip)
        made = interpolate_frames(
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
            on_step=on_step,
            frame_decoder=frame_decoder,
            draw=draw,
        )
        yield made[0, :, (done - first) * skip + min(done, 1) :].cpu()


def _spans(chunks: Iterable[Tensor], gaps: int) -> Iterator[tuple[list[Tensor], int, int]]:
    """Known frames that go through the network together, no more than ``gaps`` between them, until all have.

    With each come the number of its first frame, and of the last one up to which all frames are made by then.
    """
    held: list[Tensor] = []
    first = done = last = 0
    for frame in frames_of(chunks):
        held.append(frame)
        last = first + len(held) - 1
        if last and last - done == gaps:
            yield held[done - first :], done, done
            del held[: done - first]  # the last window may reach back into this one
            first, done = done, last
    if held and (last > done or last == 0):
        begin = max(first, last - gaps)
        yield held[begin - first :], begin, done
