"""The sound of a file beside pictures that are shown at the same times as the file's own."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from inflate.data.reading.containers import opened_container
from inflate.data.reading.footage import Footage

# Codecs that an mp4 may hold; their packets are copied as they are.
_PCM = {f"pcm_{depth}{order}" for depth in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")}
_FITTING = frozenset({"aac", "mp3", "mp2", "opus", "vorbis", "ac3", "eac3", "dts", "alac", "flac", *_PCM})


@dataclass(frozen=True)
class Sound:
    """The first sound track of ``path``, copied as it is into an mp4.

    ``origin`` is the time of the first picture on the file's own clock; what begins ``until`` or later after that, in
    seconds, is left out.
    """

    path: Path
    origin: float = 0.0
    until: float = math.inf

    def why_not(self, suffix: str = ".mp4") -> str:
        """Why it cannot go along into a file of that suffix, in words; empty where it can, or where there is none."""
        if self._codec is None:
            return ""
        if suffix.lower() != ".mp4":
            return f"a {suffix.lower().lstrip('.')} holds none"
        return "" if self._codec in _FITTING else f"an mp4 cannot hold its codec, {self._codec}"

    def there(self) -> bool:
        """Whether the file has sound that an mp4 can hold."""
        return self._codec in _FITTING

    @property
    def before(self) -> float:
        """Seconds of it that are heard before the first picture; 0 where it has none that goes along."""
        if not self.there():
            return 0.0
        with opened_container(self._footage) as container:
            track = container.streams.audio[0]
            began = self.origin if track.start_time is None else float(track.start_time * track.time_base)
            return max(0.0, self.origin - began)

    @property
    def _footage(self) -> Footage:
        return Footage(str(self.path), self.path, self.path.suffix)

    @property
    def tracks(self) -> int:
        """How many sound tracks the file has; the first one is meant everywhere else."""
        return len(self._codecs)

    @property
    def _codec(self) -> str | None:
        return self._codecs[0] if self._codecs else None

    @property
    def subtitles(self) -> int:
        """How many tracks of subtitles the file has beside it; they go nowhere."""
        return self._beside[1]

    @property
    def _codecs(self) -> list[str]:
        return self._beside[0]

    @cached_property
    def _beside(self) -> tuple[list[str], int]:
        """Codecs of the sound tracks, and the number of tracks of subtitles."""
        try:
            with opened_container(self._footage) as container:
                contexts = [track.codec_context for track in container.streams.audio]
                # What FFmpeg has no decoder for has no context.
                codecs = [one.codec.canonical_name if one else "an unknown one" for one in contexts]
                return codecs, len(container.streams.subtitles)
        except (OSError, ValueError, FFmpegError):  # damaged, or an animation of Pillow's, which has no sound
            return [], 0

    @contextlib.contextmanager
    def beside(self, target: Any) -> Iterator[Callable[[float], None]]:
        """A track of ``target``, an open mp4, and what writes all of it that is heard before a time."""
        with opened_container(self._footage) as container:
            theirs = container.streams.audio[0]
            ours = target.add_stream_from_template(theirs)
            waiting = _packets(container, theirs)
            held: list[Any] = []

            def play(until: float) -> None:
                while packet := (held.pop() if held else next(waiting, None)):
                    heard = packet.pts * packet.time_base - self.origin
                    if heard >= self.until:
                        continue
                    if heard > until:
                        held.append(packet)
                        return
                    shift = round(self.origin / packet.time_base)
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = ours
                    target.mux(packet)

            yield play


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(stream) if packet.pts is not None and packet.dts is not None)
