"""Writing data sets in two layouts others read: webdataset shards and the Hugging Face videofolder."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflate.data.decode import decode_video
from inflate.data.sampling import sample_clip_indices
from inflate.data.writing import write_video

SHARD_BYTES = 100_000_000
VIDEOFOLDER_FPS = 24


@dataclass(frozen=True)
class Sample:
    """One clip or still to be written: a key without a dot, the file with its bytes, its split and its metadata."""

    key: str
    path: Path
    split: str
    metadata: Mapping[str, Any]


def write_shards(samples: Iterable[Sample], folder: Path, max_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write ``<split>-%05d.tar`` with ``<key><suffix>`` (the file's own bytes) and ``<key>.json`` for each sample.

    A new shard begins when one would pass ``max_bytes``. The same samples give the same bytes. Returns the shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Path] = []
    by_split: dict[str, list[Sample]] = {}
    for sample in samples:
        by_split.setdefault(sample.split, []).append(sample)
    for split, members in by_split.items():
        for number, part in enumerate(_by_size(members, max_bytes)):
            shards.append(folder / f"{split}-{number:05d}.tar")
            with tarfile.open(shards[-1], "w", format=tarfile.USTAR_FORMAT) as archive:
                for sample in part:
                    described = json.dumps(dict(sample.metadata), ensure_ascii=False).encode()
                    _add(archive, f"{sample.key}{sample.path.suffix}", sample.path.read_bytes())
                    _add(archive, f"{sample.key}.json", described)
    return shards


def write_metadata(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write ``metadata.jsonl``, one JSON object a line, each with a ``file_name`` relative to ``folder``."""
    path = folder / "metadata.jsonl"
    path.write_text("".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_videofolder_clip(sample: Sample, folder: Path) -> tuple[int, float]:
    """Write one round of a clip as ``folder/<split>/<key>.mp4`` at 24 frames/s; returns its frame count and duration.

    H.264, composited on white, padded to a square; each frame is the one shown at its time. Raises ``VideoError`` if
    the clip cannot be read.
    """
    video = decode_video(sample.path)
    if video.frames.shape[1] != video.frames.shape[2]:
        video = decode_video(sample.path, max(video.frames.shape[1:3]), "pad")
    count = max(1, round(video.duration * VIDEOFOLDER_FPS))
    shown = sample_clip_indices(video.timestamps, video.duration, VIDEOFOLDER_FPS, count, loop=video.loop)
    write_video(folder / sample.split / f"{sample.key}.mp4", video.frames[shown], VIDEOFOLDER_FPS)
    return len(video.frames), video.duration


def metadata_row(sample: Sample, file_name: str) -> dict[str, Any]:
    """A line of ``metadata.jsonl``: ``file_name``, ``text`` and the rest of the sample's metadata."""
    rest = {key: value for key, value in sample.metadata.items() if key != "caption"}
    return {"file_name": file_name, "text": sample.metadata.get("caption", ""), **rest}


def _by_size(samples: list[Sample], max_bytes: int) -> Iterator[list[Sample]]:
    part: list[Sample] = []
    total = 0
    for sample in samples:
        size = sample.path.stat().st_size
        if part and total + size > max_bytes:
            yield part
            part, total = [], 0
        part.append(sample)
        total += size
    if part:
        yield part


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
