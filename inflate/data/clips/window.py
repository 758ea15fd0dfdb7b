"""One training clip as it is listed, before its pixels are read."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation"]
Kind = Literal["clip", "picture"]


@dataclass(frozen=True)
class Window:
    """A clip of one shot, or a still picture (``kind`` "picture", one frame).

    ``key`` names its pixels: it follows from the content of the file and from everything that shapes them, and not
    from the file's name or caption. Frame ``i`` is the one shown at ``start + i / fps`` seconds; ``fps`` of a picture
    is that of the clips it is trained with. ``height`` and ``width`` are in pixels.
    """

    key: str
    name: str
    caption: str
    split: Split
    start: float
    fps: float
    num_frames: int
    height: int
    width: int
    kind: Kind
