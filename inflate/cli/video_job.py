"""What the commands that work on videos share: reading, running a cascade, writing, and saying so."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from inflate.cli.checks import check_device, check_dtype, check_model, parse_by_stage
from inflate.cli.reporting import notes, progress_bar, report_files
from inflate.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from inflate.cascade import Cascade
    from inflate.cascade.long import FrameStream
    from inflate.data import Timeline
    from inflate.data.sound import Sound

_HEARD = 0.1  # seconds of sound that are missed


class VideoJob:
    """One video to make: what all applications share of arguments, progress, writing and reporting."""

    def __init__(
        self,
        output: Path,
        model: str,
        variant: str | None,
        seed: int,
        steps: str,
        guidance_scale: str,
        until: str | None,
        force: bool,
        device: str | None,
        dtype: str,
        quiet: bool,
        as_json: bool,
    ) -> None:
        from inflate.cascade import Cascade
        from inflate.data.writing import check_output

        check_output(output, overwrite=force)
        self.output, self.force, self.quiet, self.as_json = output, force, quiet, as_json
        self.start, self.seed = time.monotonic(), seed
        self.keeps_alpha = True  # where the format can
        self.loops = 0  # how many times the video is shown, as its source is
        self.finish: Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]] = iter
        place = check_device(device), check_dtype(dtype)
        self.cascade = Cascade.from_pretrained(check_model(model), *place, variant=variant)
        self.chosen = {
            "num_inference_steps": parse_by_stage("--steps", steps, int),
            "guidance_scale": parse_by_stage("--guidance-scale", guidance_scale, float),
        }
        self.until, self.unsaid = until, list[str]()
        self.cascade.settings(**self.chosen)  # refused here if they cannot be, and not once something is loaded
        self.cascade.up_to(until)
        self.settings: dict[str, Any] = {
            "model": model,
            "variant": variant,
            "seed": seed,
            "until": until,
            "dtype": dtype,
        }

    def options(self, on_step: Callable[..., Any]) -> dict[str, Any]:
        """What a method of the cascade is called with."""
        import torch

        def after_step(*arguments: Any) -> Any:
            self._say()
            return on_step(*arguments)

        generator = torch.Generator().manual_seed(self.seed)
        return self.chosen | {"generator": generator, "callback_on_step_end": after_step, "until": self.until}

    def run(
        self,
        make: "Callable[[Cascade, dict[str, Any]], Any]",
        source: Path | None = None,
        rate: int = 1,
        longer: bool = False,
    ) -> None:
        """Make the video in memory and write it.

        Frames of ``source``, ``rate`` times as many, stay at their times and its sound goes along; with ``longer``
        there are more frames behind them, which are silent.
        """
        import numpy as np

        from inflate.data import frame_times

        times = None if source is None else frame_times(source)
        with notes(self.quiet), progress_bar(self.quiet) as on_step:
            out = make(self.cascade, self.options(on_step))
        [video] = out.frames
        frames = np.stack([np.asarray(picture) for picture in video])
        self.write(frames, out.fps, *self._timed(source, times, len(frames), rate, longer))

    def stream(
        self,
        make: "Callable[[Cascade, dict[str, Any]], FrameStream]",
        source: Path,
        rate: int = 1,
        longer: bool = False,
    ) -> None:
        """As :meth:`run`, a chunk of frames at a time, so that memory does not grow with their number."""
        from inflate.data import frame_times
        from inflate.video import to_uint8

        times = frame_times(source)
        with notes(self.quiet), progress_bar(self.quiet) as on_step:
            made = make(self.cascade, self.options(on_step))
            timed = self._timed(source, times, made.num_frames, rate, longer)
            self.write((to_uint8(chunk[None])[0] for chunk in made.chunks), made.fps, *timed)

    def _timed(
        self, source: Path | None, times: "Timeline | None", count: int, rate: int, longer: bool
    ) -> "tuple[Sequence[tuple[float, float]], Sound | None]":
        """When ``count`` frames are shown, and with what sound."""
        if source is None or times is None:
            return (), None
        return self.beside(source, times, rate, count - len(times.spans) if longer else 0)

    def beside(
        self, source: Path, times: "Timeline", rate: int = 1, more: int = 0
    ) -> "tuple[Sequence[tuple[float, float]], Sound | None]":
        """When frames of ``source``, ``rate`` times as many and ``more`` behind them, are shown (empty if evenly), and
        its sound; says so where that cannot go along."""
        from inflate.data.sound import Sound

        self._keep_alpha(source, rate, more)
        self.loops = times.loops
        even, made = times.even(), times.raised(rate).extended(more)
        sound = Sound(source, times.origin, times.duration if more else math.inf)
        self._tell_subtitles(sound)
        if reason := sound.why_not(self.output.suffix):
            typer.echo(f"The sound of {source} is left out: {reason}.", err=True)
            return () if even else made.spans, None
        if sound.tracks > 1:
            typer.echo(f"Of the {sound.tracks} sound tracks of {source} the first one is kept.", err=True)
        if (lost := sound.before) > _HEARD:
            typer.echo(f"The sound of {source} before its first picture, {lost:.2g} s, is left out.", err=True)
        if more and sound.there():
            typer.echo(f"The sound of {source} ends after {times.duration:g} s; the new frames are silent.", err=True)
        return () if even else made.spans, sound if sound.there() else None

    def tell_size(self, height: int, width: int) -> None:
        """Say, once the work begins, which size frames get that are made of pictures of this one, if it is another."""
        from inflate.cascade.shapes import cropped_share

        made = self.cascade.frame_shape(height, width)
        if made != (height, width):
            share = round(100 * cropped_share(height, width, made))
            cropped = f"; {share} % at the edges is cropped" if share else ""
            self.unsaid.append(f"Frames are {made[1]} x {made[0]} px, from {width} x {height}{cropped}.")

    def _say(self) -> None:
        while self.unsaid:
            typer.echo(self.unsaid.pop(0), err=True)

    def _keep_alpha(self, source: Path, rate: int, more: int) -> None:
        """Have transparency go along where the format and the frames can; says so where not."""
        from inflate.data.transparency import SUFFIXES, Transparency, is_transparent

        if self.keeps_alpha and self.output.suffix.lower() in SUFFIXES and not more:
            if (found := Transparency.of(source)) is not None:
                self.finish = lambda chunks: found.put_back(chunks, rate)
        elif is_transparent(source):
            typer.echo(f"Transparent parts of {source} become white.", err=True)

    def _tell_subtitles(self, beside: "Sound") -> None:
        if beside.subtitles:
            typer.echo(f"The subtitles of {beside.path} are left out.", err=True)

    def drop_beside(self, source: Path) -> None:
        """Say that the sound and the transparency of ``source``, if any, belong to no frame that is made."""
        from inflate.data.sound import Sound
        from inflate.data.transparency import is_transparent

        if is_transparent(source):
            typer.echo(f"Transparent parts of {source} become white.", err=True)
        sound = Sound(source)
        self._tell_subtitles(sound)
        if sound.there() or sound.why_not():
            typer.echo(f"The sound of {source} is left out: the new video has times of its own.", err=True)

    def write(
        self,
        frames: "np.ndarray | Iterator[np.ndarray]",
        fps: float,
        spans: "Sequence[tuple[float, float]]" = (),
        sound: "Sound | None" = None,
    ) -> None:
        """Write the file and say so."""
        import numpy as np

        from inflate.data.writing import shown_otherwise, write_video

        def watched() -> "Iterator[np.ndarray]":
            self._say()
            for number, chunk in enumerate([frames] if isinstance(frames, np.ndarray) else frames):
                if number == 0 and (sentence := shown_otherwise(self.output, chunk.shape[1:3], fps)):
                    typer.echo(sentence, err=True)
                yield chunk

        write_video(self.output, self.finish(watched()), fps, self.force, spans, sound, self.loops)
        used = self.cascade.settings(**self.chosen)
        settings = self.settings | {"fps": fps, "stages": {name: asdict(values) for name, values in used.items()}}
        seconds = round(time.monotonic() - self.start, 2)
        report_files([self.output], None, settings, seconds, self.quiet, self.as_json)


def read_picture(path: Path) -> "Image.Image":
    """A picture file; of an animation its first frame, which is said.

    Raises:
        InputError: no such file, or not a picture that Pillow reads.
    """
    import numpy as np

    from inflate.data.reading.containers import PICTURE_KINDS
    from inflate.data.reading.pictures import as_looked_at, picture_at, plain, to_first_frame, used_alone

    if path.is_dir():
        raise InputError(f"{path} is a folder; name a picture in it.")
    if not path.is_file():
        raise InputError(f"There is no picture {path}.")
    try:
        with picture_at(path) as image:
            to_first_frame(image)
            image.load()
            if image.has_transparency_data and int(np.asarray(image.convert("RGBA"))[..., 3].min()) < 255:
                typer.echo(f"Transparent parts of {path} become white.", err=True)
            if said := used_alone(image):
                typer.echo(f"Of {path} {said}; interpolate, extend, vary and upscale take a whole video.", err=True)
            return as_looked_at(image)
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise InputError(f"{path} cannot be read as a picture ({plain(error)}); give a {PICTURE_KINDS}.") from error
