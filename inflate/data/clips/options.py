"""What a recipe's ``[data]`` says about clips to fine-tune on, checked before any file is touched."""

import math
from dataclasses import dataclass
from pathlib import Path

from inflate.data.kept import cache_folder
from inflate.errors import InputError


@dataclass(frozen=True)
class ClipOptions:
    """Where clips come from and how they are cut.

    ``path`` is a folder of videos, a table (``metadata.jsonl|csv|parquet``, a WebVid CSV, a ``video_path`` JSONL), tar
    shards, a Hugging Face ``datasets`` folder, or folders of numbered pictures. ``size`` is one number (the root of
    the area in pixels, with buckets over aspect ratios) or two (height, width). ``fps`` is one rate or the lowest and
    the highest, between which each window's rate is drawn log-uniformly; never above the file's own.
    ``clips_per_video`` 0 takes as many windows as fit without overlap, at most 8. ``cut_threshold`` is PySceneDetect's
    for its ContentDetector (0: no detection). ``min_motion`` is the least mean absolute difference of neighbouring
    drawn frames, in [0, 1]. ``validation`` is the share of videos held out. ``cache`` empty means what
    :func:`inflate.data.kept.cache_folder` says: ``.inflate-cache`` in ``path``, or below ``INFLATE_CACHE``.

    Raises:
        InputError: a value that cannot be, by name.
    """

    path: str
    num_frames: int = 16
    size: tuple[int, ...] = (512,)
    fps: tuple[float, ...] = (8.0,)
    clips_per_video: int = 0
    max_aspect: float = 2.0
    aspect_buckets: bool = True
    cut_threshold: float = 27.0
    min_motion: float = 0.002
    crop_letterbox: bool = True
    caption: str = ""
    validation: float = 0.1
    pictures: str = ""
    cache: str = ""
    workers: int = 2

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise InputError("data.path is empty; name a folder of videos, or a table or shard of them")
        if self.num_frames < 2:
            raise InputError(f"data.num_frames is {self.num_frames}; a clip has at least 2 frames")
        if len(self.size) not in (1, 2) or not all(1 <= side <= 8192 for side in self.size):
            raise InputError(
                f"data.size is {list(self.size)}; give one number of pixels, or [height, width], at most 8192"
            )
        rates = all(math.isfinite(rate) and rate > 0 for rate in self.fps)
        if len(self.fps) not in (1, 2) or not rates or self.fps[0] > self.fps[-1]:
            raise InputError(f"data.fps is {list(self.fps)}; give one rate above 0, or the lowest and the highest")
        for name, low, high in (
            ("clips_per_video", 0, 100_000),
            ("max_aspect", 1.0, 100.0),
            ("cut_threshold", 0.0, 255.0),
            ("min_motion", 0.0, 1.0),
            ("validation", 0.0, 0.9),
            ("workers", 0, 256),
        ):
            if not low <= getattr(self, name) <= high:  # NaN fails too
                raise InputError(f"data.{name} is {getattr(self, name)}; it must lie between {low} and {high}")

    @property
    def cache_folder(self) -> Path:
        """Where scans and encodings are kept."""
        if self.cache:
            return Path(self.cache)
        return cache_folder(self.path)
