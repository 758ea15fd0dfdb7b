"""What a visitor asks for: each application's inputs, checked as far as that is quick, and what will be done."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from inflate.cascade import Cascade, CascadeOutput
from inflate.cascade.constrained import enlarge_video, raise_frame_rate
from inflate.cascade.enlarging import usual_factor
from inflate.cascade.long import FrameStream
from inflate.cascade.reconstruction import extend_video, frame_numbers, infill_video
from inflate.errors import InputError
from inflate.page.abilities import RECONSTRUCTION, Abilities
from inflate.page.files import Request
from inflate.page.uploads import (
    MAX_UPSCALED_BYTES,
    check_picture,
    check_prompt,
    check_video,
    cut_for_upscaling,
    fit_for_upscaling,
    kept_upload,
    left_out,
    one_frame_of,
)
from inflate.video import Video, from_uint8

MAX_SEED = 2**31 - 1
_GUIDE = "errors"  # the commands' default

Make = Callable[[Cascade, Any, dict[str, Any]], CascadeOutput | FrameStream]
"""Makes the video with a cascade, of what was read of the uploads, with a cascade's options."""


@dataclass(frozen=True)
class Settings:
    """The page's own settings, as its controls give them."""

    fps: float
    num_frames: int
    frame_skip: int
    guidance_scale: float
    seed: int
    weight: float = 1.0  # of reconstruction guidance
    negative_prompt: str = ""

    @classmethod
    def read(
        cls,
        fps: float,
        frames: float,
        skip: float,
        guidance: float,
        random: bool,
        seed: float | None,
        weight: float,
        negative: str | None,
    ) -> "Settings":
        """From controls; a random seed where one is asked for or none is given."""
        chosen = secrets.randbelow(MAX_SEED) if random or seed is None else int(seed)
        if not 0 <= chosen <= MAX_SEED:
            raise InputError(f"The seed must be a whole number from 0 to {MAX_SEED}.")
        text = " ".join((negative or "").split())
        return cls(float(fps), int(frames), int(skip), float(guidance), chosen, float(weight), text)


@dataclass(frozen=True)
class Wish:
    """A video to be made: the request that says so in words, its name for the visitor, and how it is made.

    ``read`` opens the uploads when its turn comes; ``left_out`` says what of them is not in the video, in a sentence.
    ``settings`` are all of the page's; ``guided`` says whether guidance is among the request's.
    """

    request: Request
    title: str
    read: Callable[[], Any]
    make: Make
    settings: Settings
    guided: bool = True
    left_out: Callable[[], str] = str


def generate(cascade: Cascade, model: str, prompt: str | None, settings: Settings) -> Wish:
    """A prompt becomes a video."""
    told = Abilities.of(cascade).told
    text = None if told == "nothing" else check_prompt(prompt)
    negative = settings.negative_prompt if told == "text" else ""
    options = _timing(settings) | ({"negative_prompt": negative} if negative else {})
    numbers, skip = (settings.num_frames, settings.fps), settings.frame_skip

    def make(cascade: Cascade, given: None, more: dict[str, Any]) -> CascadeOutput:
        with avoiding(cascade, negative):
            return cascade(text, *numbers, frame_skip=skip, **more)

    request = Request("generate", () if text is None else (text,), model, settings.seed, options)
    return Wish(request, text or "a video", lambda: None, make, settings)


def animate(cascade: Cascade, model: str, image: str | None, settings: Settings) -> Wish:
    """A picture moves."""
    numbers = (settings.num_frames, settings.fps, settings.frame_skip)
    request = Request("animate", _handed_in("picture", image), model, settings.seed, _timing(settings))
    wish = _of_files(
        request,
        lambda: check_picture(image),
        lambda cascade, picture, more: cascade.animate(picture, *numbers, **more),
        settings,
    )
    return replace(wish, left_out=lambda: one_frame_of(image or ""))


def between(cascade: Cascade, model: str, first: str | None, last: str | None, settings: Settings) -> Wish:
    """Two pictures become a video from one to the other."""
    numbers = (settings.num_frames, settings.fps, settings.frame_skip)
    names = (*_handed_in("picture", first), *_handed_in("picture", last))
    wish = _of_files(
        Request("interpolate", names, model, settings.seed, _timing(settings)),
        lambda: (check_picture(first), check_picture(last)),
        lambda cascade, ends, more: cascade.interpolate(ends[0], ends[1], *numbers, **more),
        settings,
    )
    return replace(wish, left_out=lambda: " ".join(filter(None, (one_frame_of(one or "") for one in (first, last)))))


def faster(
    cascade: Cascade, model: str, video: str | None, times: float, method: str, prompt: str | None, settings: Settings
) -> Wish:
    """A video gets more frames between its own."""
    rate = int(times)
    options, completing = _completing(method, prompt, settings)

    def make(cascade: Cascade, known: Video, more: dict[str, Any]) -> CascadeOutput:
        if method == RECONSTRUCTION:
            return raise_frame_rate(cascade, known, rate, guide=_GUIDE, **completing, **more)
        return cascade.interpolate_video(known, rate, **more)

    options = {"frame_skip": rate, "method": method} | options
    request = Request("interpolate", _handed_in("video", video), model, settings.seed, options)
    return _of_video(request, video, make, settings)


def extend(
    cascade: Cascade, model: str, video: str | None, new: float, method: str, prompt: str | None, settings: Settings
) -> Wish:
    """A video goes on."""
    count = int(new)
    options, completing = _completing(method, prompt, settings)

    def make(cascade: Cascade, known: Video, more: dict[str, Any]) -> CascadeOutput:
        if method == RECONSTRUCTION:
            seconds = (known.num_frames + count) / known.fps
            return extend_video(cascade, known, seconds, guide=_GUIDE, **completing, **more)
        return cascade.extend(known, count, **more)

    options = {"frames": count, "method": method} | options
    request = Request("extend", _handed_in("video", video), model, settings.seed, options)
    return _of_video(request, video, make, settings)


def infill(
    cascade: Cascade, model: str, video: str | None, missing: str | None, prompt: str | None, settings: Settings
) -> Wish:
    """Some frames of a video are made anew."""
    numbers = (missing or "").strip()
    if not numbers:
        raise InputError("Say which frames are to be made, by their numbers from 0, such as 4-11.")
    options, completing = _completing(RECONSTRUCTION, prompt, settings)

    def make(cascade: Cascade, source: Video, more: dict[str, Any]) -> CascadeOutput:
        known = torch.ones(source.num_frames, dtype=torch.bool)
        known[frame_numbers(numbers, source.num_frames, "What is to be made")] = False
        return infill_video(cascade, source, known, guide=_GUIDE, **completing, **more)

    request = Request("infill", _handed_in("video", video), model, settings.seed, {"missing": numbers} | options)
    return _of_video(request, video, make, settings)


def vary(cascade: Cascade, model: str, video: str | None, settings: Settings) -> Wish:
    """Another video of the same thing."""
    numbers = (settings.num_frames, settings.fps, settings.frame_skip)
    request = Request("vary", _handed_in("video", video), model, settings.seed, _timing(settings))
    return _of_video(request, video, lambda cascade, known, more: cascade.vary(known, *numbers, **more), settings)


def upscale(
    cascade: Cascade, model: str, video: str | None, method: str, prompt: str | None, settings: Settings
) -> Wish:
    """A video grows."""
    options, completing = _completing(method, prompt, settings)

    def make(cascade: Cascade, known: Video, more: dict[str, Any]) -> CascadeOutput | FrameStream:
        if method == RECONSTRUCTION:
            return enlarge_video(cascade, known, **completing, **more)
        most = MAX_UPSCALED_BYTES // (3 * known.num_frames)
        factor = usual_factor(cascade.upscalers(), known.height, known.width, most)
        return enlarged_stream(cascade, known, factor, more)

    note = "The page first makes large and long videos smaller and shorter; the command takes the whole video."
    names = _handed_in("video", video)
    request = Request("upscale", names, model, settings.seed, {"method": method} | options, note)
    wish = _of_video(request, video, make, settings, fit_for_upscaling)
    without = wish.left_out
    return replace(wish, guided=False, left_out=lambda: f"{without()} {cut_for_upscaling(video or '')}".strip())


def enlarged_stream(cascade: Cascade, video: Video, factor: float, options: dict[str, Any]) -> FrameStream:
    """``video`` enlarged a few frames at a time, as ``inflate upscale`` does it."""
    chunks = (from_uint8(frame[None, None])[0] for frame in video.frames)
    asked = {name: value for name, value in options.items() if name != "output_type"}
    made = cascade.upscale_chunks(chunks, video.num_frames, factor, fps=video.fps, **asked)
    return FrameStream(made, video.num_frames, float(video.fps))


@contextmanager
def avoiding(cascade: Cascade, negative_prompt: str) -> Iterator[None]:
    """Tell the decoder for a while what guidance goes away from."""
    decoder: Any = cascade.stage("decoder")
    if not negative_prompt:
        yield
        return
    before = decoder.config
    decoder.config = replace(before, negative_prompt=negative_prompt)
    try:
        yield
    finally:
        decoder.config = before


def _of_video(
    request: Request, video: str | None, make: Make, settings: Settings, fit: Callable[[Video], Video] = lambda all: all
) -> Wish:
    wish = _of_files(request, lambda: fit(check_video(video)), make, settings)
    return replace(wish, left_out=lambda: left_out(video or ""))


def _of_files(request: Request, read: Callable[[], Any], make: Make, settings: Settings) -> Wish:
    return Wish(request, f"{request.command} {request.inputs[0]}", read, make, settings)


def _timing(settings: Settings) -> dict[str, Any]:
    return {"frames": settings.num_frames, "fps": settings.fps, "frame_skip": settings.frame_skip}


def _completing(method: str, prompt: str | None, settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """A command's options, and a function's arguments, for making frames with the decoder alone; else none."""
    if method != RECONSTRUCTION:
        return {}, {}
    text = check_prompt(prompt) if (prompt or "").strip() else ""
    return (
        {"weight": settings.weight} | ({"prompt": text} if text else {}),
        {"weight": settings.weight, "prompt": text},
    )


def _handed_in(what: str, path: str | None) -> tuple[str, ...]:
    """The name of an upload, which is read when its turn comes."""
    if path is None:
        raise InputError(f"There is no {what}: upload one first.")
    return (kept_upload(path).name,)
