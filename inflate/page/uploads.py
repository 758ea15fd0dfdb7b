"""What strangers hand to the page, checked before anything is loaded; every refusal is one sentence."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from inflate.data.decode import frame_times, iterate_frames, stated_size, video_facts
from inflate.data.reading.containers import NoMediaError
from inflate.data.reading.pictures import as_looked_at, picture_at, used_alone
from inflate.data.sound import Sound
from inflate.data.transparency import is_transparent
from inflate.errors import InputError
from inflate.video import Video

MAX_PROMPT_LETTERS = 300
MAX_PICTURE_SIDE = 8192
MAX_PICTURE_PIXELS = 50_000_000
KEPT_PICTURE_SIDE = 2048
MAX_SECONDS = 20.0
MAX_FRAMES = 600
MAX_VIDEO_SIDE = 1920
MAX_VIDEO_PIXELS = MAX_FRAMES * MAX_VIDEO_SIDE * 1080
# No network of a chain looks at more; 600 frames of it take 450 MiB at the most.
KEPT_VIDEO_SIDE = 512
# The sampler's own files: what a viewer of the page may need to enlarge, at most.
MAX_UPSCALE_SIDE = 256
MAX_UPSCALE_FRAMES = 120
MAX_UPSCALED_BYTES = 400_000_000  # of what comes of it, which lies in memory while three files are written

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
    """A picture file of reasonable size, opaque; at most ``KEPT_PICTURE_SIDE`` pixels a side are kept of a larger one.

    Raises:
        InputError: none given, not a picture, or too large a one.
    """
    if path is None:
        raise InputError("There is no picture: upload one first.")
    path = kept_upload(path)
    try:
        with picture_at(path) as image:
            # The size is read from the header; pixels of a larger picture are never decoded.
            if max(image.size) > MAX_PICTURE_SIDE or image.width * image.height > MAX_PICTURE_PIXELS:
                raise InputError(
                    f"{path.name} has {image.width} x {image.height} pixels: make it smaller, "
                    f"at most {MAX_PICTURE_SIDE} on each side and {MAX_PICTURE_PIXELS // 10**6} million in all."
                )
            image.load()
            picture = as_looked_at(image)
    except InputError:
        raise
    except NoMediaError as error:
        raise InputError(f"{path.name} cannot be used because {error}: upload a png, jpg or webp.") from error
    except Exception as error:  # a decoder may raise anything on damaged bytes
        large = isinstance(error, Image.DecompressionBombError)
        reason = "it has too many pixels" if large else "it is not a picture, or a damaged one"
        raise InputError(f"{path.name} cannot be used because {reason}: upload a png, jpg or webp.") from error
    picture.thumbnail((KEPT_PICTURE_SIDE, KEPT_PICTURE_SIDE), Image.Resampling.LANCZOS)
    return picture


def check_video(path: str | Path | None) -> Video:
    """A short video, decoded; at most ``KEPT_VIDEO_SIDE`` pixels a side are kept of larger frames.

    Raises:
        InputError: none given, not a video, or too long or too large a one.
    """
    if path is None:
        raise InputError("There is no video: upload one first.")
    path = kept_upload(path)
    refuse_large(path)
    facts = _plainly(path, lambda: video_facts(path))
    if facts.duration > MAX_SECONDS or facts.num_frames > MAX_FRAMES:
        length = f"{facts.duration:.0f} s" if facts.duration < 120 else f"{facts.duration / 60:.0f} minutes"
        raise InputError(
            f"{path.name} lasts {length} ({facts.num_frames} frames): "
            f"cut it to at most {MAX_SECONDS:.0f} s and {MAX_FRAMES} frames."
        )
    chunks = _plainly(path, lambda: [_at_most(one, KEPT_VIDEO_SIDE) for one in iterate_frames(path, frames_at_once=1)])
    return Video(np.concatenate(chunks), facts.fps)


def kept_upload(path: str | Path) -> Path:
    """The path of an upload; raises ``InputError`` where it has been removed, as in a long queue it may be."""
    if not Path(path).is_file():
        raise InputError(f"{Path(path).name} is no longer kept here: upload it again.")
    return Path(path)


def refuse_large(path: Path) -> None:
    """Refuse a video that would decode to too much, by headers and packets alone.

    A gif of a few kilobytes can hold gigabytes of pixels, so this comes before a pixel is decoded.

    Raises:
        InputError: not a video, or too large a one.
    """
    width, height, count = _plainly(path, lambda: stated_size(path))
    if max(width, height) > MAX_VIDEO_SIDE:
        raise InputError(
            f"{path.name} has {width} x {height} pixels: make it smaller, at most {MAX_VIDEO_SIDE} a side."
        )
    if width * height * count > MAX_VIDEO_PIXELS:
        raise InputError(
            f"{path.name} has {count} frames of {width} x {height} pixels: cut it or make it smaller, "
            f"at most {MAX_VIDEO_PIXELS // 10**6} million pixels in all frames together."
        )


def left_out(path: str | Path) -> str:
    """What a file has and the page's videos have nothing of, in a sentence; empty where there is no such thing.

    Raises:
        InputError: as :func:`check_video`.
    """
    path = kept_upload(path)
    times, sound, transparent = _plainly(path, lambda: (frame_times(path), Sound(path), is_transparent(path)))
    told = {"its sound": sound.tracks, "its subtitles": sound.subtitles, "its transparency": transparent}
    told["the uneven times of its frames"] = not times.even()
    named = [what for what, there in told.items() if there]
    return f"Not kept from {path.name}: {', '.join(named)}." if named else ""


def one_frame_of(path: str | Path) -> str:
    """That a picture is an animation of which one frame is used, in a sentence; empty where it is none.

    Raises:
        InputError: it is no longer there.
    """
    path = kept_upload(path)
    with picture_at(path) as image:
        said = used_alone(image)
    return f"Of {path.name} {said}." if said else ""


def cut_for_upscaling(path: str | Path) -> str:
    """What :func:`fit_for_upscaling` takes from a file, in a sentence; empty where that is nothing."""
    path = kept_upload(path)
    facts = _plainly(path, lambda: video_facts(path))
    if max(facts.height, facts.width) <= MAX_UPSCALE_SIDE and facts.num_frames <= MAX_UPSCALE_FRAMES:
        return ""
    return (
        f"Made of at most {MAX_UPSCALE_FRAMES} frames of {MAX_UPSCALE_SIDE} px: {path.name} has {facts.num_frames} of "
        f"{facts.width} x {facts.height} px, which `inflate upscale` takes as they are."
    )


def fit_for_upscaling(video: Video) -> Video:
    """A video that the page has time to enlarge: at most 256 pixels a side and 120 frames, the first ones."""
    return Video(np.ascontiguousarray(_at_most(video.frames[:MAX_UPSCALE_FRAMES], MAX_UPSCALE_SIDE)), video.fps)


def _at_most(frames: np.ndarray, side: int) -> np.ndarray:
    """uint8 frames (F, H, W, 3), made smaller where they are larger than ``side`` pixels."""
    height, width = frames.shape[1:3]
    share = side / max(height, width)
    if share >= 1:
        return frames
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames])


def _plainly(path: Path, read: Callable[[], T]) -> T:
    # The server's own path to an upload is nobody's business.
    try:
        return read()
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error
