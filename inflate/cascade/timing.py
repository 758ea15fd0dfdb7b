"""How long long work will take, before it begins: small parts of it are timed."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack, cast

import torch
from torch import Tensor

from inflate.cascade.applications import SamplingOptions
from inflate.cascade.enlarging import Enlarging
from inflate.cascade.known import checked_timing
from inflate.models.beginning import drawn_pixels
from inflate.stages import ChainState, StageSettings, stage_generator

if TYPE_CHECKING:
    from inflate.cascade.chain import Cascade
    from inflate.data.decode import VideoFacts
    from inflate.video import Video

_LONG = 160  # frames made, of which the two windows that are timed are a fifth or less


def seconds_of_known(
    cascade: "Cascade",
    video: "Video | VideoFacts",
    frame_skip: int = 1,
    new: int = 0,
    **options: Unpack[SamplingOptions],
) -> float | None:
    """How long a video of that length and size takes, ``frame_skip`` times its rate and with ``new`` frames behind it.

    None where finding it out would take a large share of the work itself, or where a stage cannot tell.

    Raises:
        InputError: bad numbers.
    """
    checked_timing(video, frame_skip, new or None)
    count = (video.num_frames - 1) * frame_skip + 1 + new
    stage: Any = cascade.stage("interpolation")
    if count < _LONG or (stage is not None and not hasattr(stage, "seconds")):
        return None
    settings, size = cascade.chosen_settings(options), cascade.frame_shape(video.height, video.width)
    larger = Enlarging(cascade.enlargers(options.get("until")), size, count)
    seconds = sum(larger.seconds(cascade, settings))
    if stage is not None and (new or frame_skip > 1):
        frames, known = video.num_frames, None
        if new:
            told = min(frames, stage.window_size() - 1)
            frames, known = told + new, torch.arange(told + new) < told
        state = ChainState((), (0,), frames, video.fps, frame_skip=frame_skip, known_frames=known)
        with cascade.running(stage):
            seconds += stage.seconds(state, *size, settings[stage.name])
    return seconds


def seconds_of_stream(
    cascade: "Cascade", state: ChainState, settings: Mapping[str, StageSettings], until: str | None = None
) -> tuple[float, int, tuple[int, int]] | None:
    """How long the one video of ``state`` takes that is drawn in many windows, its number of frames, and their size.

    None as for :func:`seconds_of_known`.
    """
    stages, decoder = cascade.up_to(until), cast(Any, cascade.stage("decoder"))
    if state.num_frames < _LONG:
        return None
    size, count = drawn_pixels(decoder), state.num_frames
    seconds = _drawing(cascade, decoder, state, settings["decoder"])
    for stage in cast(Any, stages):
        if stage.name == "interpolation" and state.frame_skip > 1:
            with cascade.running(stage):
                seconds += stage.seconds(state, *size, settings[stage.name])
            count = (count - 1) * state.frame_skip + 1
    larger = Enlarging(cascade.enlargers(until), size, count)
    return seconds + sum(larger.seconds(cascade, settings)), count, larger.size


def _drawing(cascade: "Cascade", decoder: Any, state: ChainState, settings: StageSettings) -> float:
    """Seconds of the decoder, from one window; frames of two windows are drawn twice, and decoded once."""
    size, generator = decoder.embed_size(), stage_generator(0, "timing")
    embeds = None if size is None else torch.nn.functional.normalize(torch.randn(1, size, generator=generator))
    window = replace(state, num_frames=decoder.window_size(), image_embeds=embeds, segments=())
    start = drawn = 0.0
    with cascade.running(decoder), torch.no_grad():
        for _ in range(2):  # the first time kernels are chosen and buffers made
            start = time.perf_counter()
            latents = decoder.drawing(window, 0, settings, _unchanged)()
            drawn = time.perf_counter()
            decoder.to_pixels(latents)
    decoded = time.perf_counter() - drawn
    drawing = (drawn - start) * decoder.work(state, settings) / decoder.work(window, settings)
    return drawing + decoded * state.num_frames / window.num_frames


def _unchanged(video: int, step: int, timestep: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
    return sample
