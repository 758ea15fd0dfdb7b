"""Can one see where the windows of a long video meet?"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.evaluate.options import (
    Device,
    Dtype,
    Guidance,
    Json,
    ModelOrBundled,
    Quiet,
    Seed,
    Steps,
    progress_bar,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np

_PROMPTS = ("party popper", "beating heart", "rocket", "waving hand")
_SHOWN = 20  # frames from one picture of the sheet to the next


def seams(
    model: ModelOrBundled = "bundled:emoji",
    prompt: Annotated[list[str] | None, typer.Option(help="What to show; repeat for several videos.")] = None,
    frames: Annotated[int, typer.Option(help="Frames per video.", min=2)] = 300,
    fps: Annotated[float, typer.Option(help="Their frame rate.")] = 8.0,
    overlap: Annotated[
        float | None, typer.Option(help="Share of a window in the next one; default: the family's.")
    ] = None,
    concatenate: Annotated[
        bool, typer.Option(help="Measure clips put end to end as well, which must be seen to have seams.")
    ] = True,
    sheet: Annotated[
        Path | None, typer.Option(help=f"Write every {_SHOWN}th frame to this PNG, a row for each video.")
    ] = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Are frames where the decoder's windows meet further apart than others? Exit code 1 if so."""
    from inflate.cli.evaluate.options import check_asked
    from inflate.data.writing import write_contact_sheet
    from inflate.evaluate.seams import measure_seams, window_borders

    check_asked(json_file, sheet, None, "test", fps)
    prompts = prompt or list(_PROMPTS)
    maker = _Maker(model, frames, fps, seed, overlap, {"steps": steps, "guidance_scale": guidance_scale}, device, dtype)
    shown: dict[str, np.ndarray] = {}

    def generate(text: str) -> "np.ndarray":
        shown[text] = maker.video(text)
        return shown[text]

    with progress_bar("videos", len(prompts) * (1 + concatenate), quiet) as advance:
        report = measure_seams(prompts, generate, window_borders(frames, *maker.windows(), maker.last_call()), advance)
        apart = None
        if concatenate:
            borders = window_borders(frames, maker.windows()[0], 0)
            apart = measure_seams(prompts, lambda text: maker.video(text, 0.0), borders, advance)
    if sheet is not None:
        rows = [video[::_SHOWN] for video in shown.values()]
        write_contact_sheet(sheet, rows, list(shown), max(len(row) for row in rows), overwrite=True)
    write_json(json_file, {"windows": report.as_dict(), "end to end": None if apart is None else apart.as_dict()})
    for label, found in (("windows", report), ("clips end to end", apart)):
        if found is not None:
            _say(label, found)
    if not report.passes:
        raise typer.Exit(1)


def _say(label: str, report: Any) -> None:
    verdict = "no seam shows" if report.passes else "seams show"
    typer.echo(
        f"{label}: {report.above} of {report.seams} seams above the 95th percentile of ordinary frame differences "
        f"(up to {report.allowed} by chance): {verdict}"
    )
    for row in report.rows:
        typer.echo(
            f"  {row.name}: mean {row.mean_seam:.4f} at seams, {row.mean_ordinary:.4f} elsewhere; "
            f"worst seam {row.worst:.4f}, limit {row.limit:.4f}"
        )


class _Maker:
    """Makes long videos with a cascade's decoder."""

    def __init__(
        self,
        model: str,
        frames: int,
        fps: float,
        seed: int,
        overlap: float | None,
        sampling: dict[str, Any],
        device: str | None,
        dtype: str,
    ) -> None:
        from inflate.cascade import Cascade
        from inflate.cli.checks import check_device, check_dtype
        from inflate.errors import InputError

        self.cascade = Cascade.from_pretrained(model, check_device(device), check_dtype(dtype), keep_loaded=True)
        self.frames, self.fps, self.seed = frames, fps, seed
        decoder: Any = self.cascade.stage("decoder")
        if decoder is None or frames <= decoder.window_size():
            raise InputError("Seams need a cascade with a decoder, and more frames than it sees at once.")
        self.decoder = decoder
        self.config = decoder.config if overlap is None else replace(decoder.config, overlap=overlap)
        self.options: dict[str, Any] = {
            "num_inference_steps": None if sampling["steps"] is None else {"decoder": sampling["steps"]},
            "guidance_scale": None if sampling["guidance_scale"] is None else {"decoder": sampling["guidance_scale"]},
        }
        self.cascade.settings(**self.options)  # refused here if they cannot be

    def windows(self) -> tuple[int, int]:
        """Frames of a window, and of its overlap."""
        size = self.decoder.window_size()
        return size, int(size * self.config.overlap)

    def last_call(self) -> int | None:
        """Number of the last evaluation, whose windows can be seen; None where windows stay."""
        if not self.config.moving or not self.windows()[1]:
            return None
        return self.cascade.settings(**self.options)["decoder"].num_inference_steps - 1

    def video(self, prompt: str, overlap: float | None = None) -> "np.ndarray":
        """A video, uint8 (F, H, W, 3), from windows of another overlap if one is given."""
        import numpy as np
        import torch

        from inflate.video import to_uint8

        self.decoder.config = self.config if overlap is None else replace(self.config, overlap=overlap)
        generator = torch.Generator().manual_seed(self.seed)
        made = self.cascade.stream(
            prompt, self.frames, self.fps, generator, until="decoder", frame_skip=1, **self.options
        )
        return np.concatenate([to_uint8(chunk[None])[0] for chunk in made.chunks])
