"""How long long work will take, before it begins: small parts of it are timed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import torch

from inflate.cascade.applications import SamplingOptions
from inflate.cascade.enlarging import Enlarging
from inflate.cascade.known import checked_timing
from inflate.models.beginning import drawn_pixels
from inflate.stages import ChainState, StageSettings

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
    if count < _LONG:
        return None
    settings, size = cascade.chosen_settings(options), cascade.frame_shape(video.height, video.width)
    found = Enlarging(cascade.enlargers(options.get("until")), size, count).seconds(cascade, settings)
    if stage is not None and (new or frame_skip > 1):
        frames, known = video.num_frames, None
        if new:
            told = min(frames, stage.window_size() - 1)
            frames, known = told + new, torch.arange(told + new) < told
        state = ChainState((), (0,), frames, video.fps, frame_skip=frame_skip, known_frames=known)
        with cascade.running(stage):
            found.append(stage.seconds(state, *size, settings[stage.name]))
    return _sum(found)


def seconds_of_stream(
    cascade: "Cascade", state: ChainState, settings: Mapping[str, StageSettings], until: str | None = None
) -> tuple[float, int, tuple[int, int]] | None:
    """How long the one video of ``state`` takes that is drawn in many windows, its number of frames, and their size.

    None as for :func:`seconds_of_known`.
    """
    if state.num_frames < _LONG:
        return None
    size, found = drawn_pixels(cascade.stage("decoder")), []
    for stage in cascade.up_to(until):
        if stage.name == "decoder" or (stage.name == "interpolation" and state.frame_skip > 1):
            with cascade.running(stage):
                found.append(stage.seconds(state, *size, settings[stage.name]))
            state = stage.after(state)
    larger = Enlarging(cascade.enlargers(until), size, state.num_frames)
    seconds = _sum(found + larger.seconds(cascade, settings))
    return None if seconds is None else (seconds, state.num_frames, larger.size)


def _sum(seconds: list[float]) -> float | None:
    return sum(seconds) if all(seconds) else None
