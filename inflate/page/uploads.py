"""What strangers hand to the page, checked before anything is loaded; every refusal is one sentence."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from inflate.data.decode import decode_video, video_facts
from inflate.data.reading.pictures import as_looked_at
from inflate.errors import InputError
from inflate.video import Video

MAX_PROMPT_LETTERS = 300
MAX_PICTURE_SIDE = 8192
MAX_SECONDS = 20.0
MAX_FRAMES = 600
MAX_VIDEO_SIDE = 1920
# The sampler's own files: what a viewer of the page may need to enlarge, at most.
MAX_UPSCALE_SIDE = 256
MAX_UPSCALE_FRAMES = 120

T = TypeVar("T")


def check_prompt(text: str | None) -> str:
    """A prompt the bundled text encoder can read: not empty, not endless, in Latin letters.

    Raises:
        InputError: one sentence for the page.
    """
    prompt = " ".join((text or "").split())
    if not prompt:
        raise InputError("The prompt is empty: say in a few English words what the video should show.")
    if len(prompt) > MAX_PROMPT_LETTERS:
        raise InputError(f"The prompt has {len(prompt)} letters: use at most {MAX_PROMPT_LETTERS}.")
    letters = [letter for letter in prompt if letter.isalpha()]
    foreign = [letter for letter in letters if not unicodedata.name(letter, "").startswith("LATIN")]
    if not letters or 2 * len(foreign) > len(letters):
        raise InputError("The model has learned English words only: please write the prompt in English.")
    return prompt


def check_picture(path: str | Path | None) -> Image.Image:
    """A picture file of reasonable size, opaque.

    Raises:
        InputError: none given, not a picture, or too large a one.
    """
    if path is None:
        raise InputError("There is no picture: upload one first.")
    path = Path(path)
    try:
        with Image.open(path) as image:
            # The size is read from the header; pixels of a larger picture are never decoded.
            if max(image.size) > MAX_PICTURE_SIDE:
                raise InputError(
                    f"{path.name} has {image.width} x {image.height} pixels: "
                    f"make it smaller, at most {MAX_PICTURE_SIDE} on each side."
                )
            image.load()
            return as_looked_at(image)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        large = isinstance(error, Image.DecompressionBombError)
        reason = "it has too many pixels" if large else "it is not a picture, or a damaged one"
        raise InputError(f"{path.name} cannot be used because {reason}: upload a png, jpg or webp.") from error


def check_video(path: str | Path | None) -> Video:
    """A short video, decoded.

    Raises:
        InputError: none given, not a video, or too long or too large a one.
    """
    if path is None:
        raise InputError("There is no video: upload one first.")
    path = Path(path)
    facts = video_facts(path, path.name) if not path.is_file() else _plainly(path, lambda: video_facts(path))
    if facts.duration > MAX_SECONDS or facts.num_frames > MAX_FRAMES:
        length = f"{facts.duration:.0f} s" if facts.duration < 120 else f"{facts.duration / 60:.0f} minutes"
        raise InputError(
            f"{path.name} lasts {length} ({facts.num_frames} frames): "
            f"cut it to at most {MAX_SECONDS:.0f} s and {MAX_FRAMES} frames."
        )
    if max(facts.width, facts.height) > MAX_VIDEO_SIDE:
        raise InputError(
            f"{path.name} has {facts.width} x {facts.height} pixels: make it smaller, at most {MAX_VIDEO_SIDE} a side."
        )
    decoded = _plainly(path, lambda: decode_video(path, max_frames=MAX_FRAMES))
    return Video(decoded.frames, decoded.fps or facts.fps)


def fit_for_upscaling(video: Video) -> Video:
    """A video that the page has time to enlarge: at most 256 pixels a side and 120 frames, the first ones."""
    frames = video.frames[:MAX_UPSCALE_FRAMES]
    share = MAX_UPSCALE_SIDE / max(video.height, video.width)
    if share < 1:
        size = (max(1, round(video.width * share)), max(1, round(video.height * share)))
        frames = np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames])
    return Video(np.ascontiguousarray(frames), video.fps)


def _plainly(path: Path, read: Callable[[], T]) -> T:
    # The server's own path to an upload is nobody's business.
    try:
        return read()
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error
