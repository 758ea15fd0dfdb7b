"""Does reconstruction guidance beat replacement alone?"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.evaluate.family import Family, read_things
from inflate.cli.evaluate.options import (
    DataOption,
    Device,
    Dtype,
    Frames,
    Guidance,
    Json,
    ModelOrBundled,
    Quiet,
    Seed,
    Split,
    Steps,
    check_asked,
    parse_numbers,
    progress_bar,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np

    from inflate.evaluate.reconstruction import Complete


def reconstruction(
    data: DataOption,
    model: ModelOrBundled = "bundled:emoji",
    clips: Annotated[int, typer.Option(help="How many clips.", min=2)] = 16,
    weights: Annotated[str, typer.Option(help="Weights w_r of reconstruction guidance; 0 is added.")] = "0.5,1,1.5",
    guide: Annotated[
        str, typer.Option(help="The form of guidance: errors or gradient; see `inflate extend`.")
    ] = "errors",
    split: Split = "test",
    frames: Frames = 16,
    fps: Annotated[float, typer.Option(help="Frame rate of the clips.")] = 8.0,
    sheet: Annotated[
        Path | None, typer.Option(help="Write two clips of both tasks to this PNG: truth, replacement, best weight.")
    ] = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Complete real clips with the decoder alone: does reconstruction guidance beat replacing known frames alone?

    The second half of each clip is drawn anew, then its middle half; the Fréchet distance to the true clips, the jump
    where new frames meet known ones, and the error of new frames, by weight.
    """
    from inflate.cascade.reconstruction import check_guidance
    from inflate.data.writing import write_contact_sheet
    from inflate.evaluate.features import EfficientNetFeatures
    from inflate.evaluate.reconstruction import EXTENDED, FILLED_IN, markdown_table, measure_completion, sheet_rows

    check_asked(json_file, sheet, data, split, fps)
    check_guidance(0.0, guide)
    chosen = parse_numbers("--weights", weights)
    family = Family(model, device, dtype, steps, guidance_scale)
    things = read_things(data, family.frame_size(None), quiet)
    names = things.choose(split, clips, seed)
    truths = [things.clip_frames(name, fps, frames) for name in names]
    with progress_bar("clips", 2 * len(names) * len({0.0, *chosen}), quiet) as advance:
        report, made = measure_completion(
            _completer(family, fps, guide), truths, chosen, EfficientNetFeatures(), seed, advance, _through(family)
        )
    typer.echo(markdown_table(report))
    for task in (EXTENDED, FILLED_IN):
        alone, best = report.alone(task), report.best(task)
        typer.echo(
            f"{task}, {best.name}: Fréchet distance {best.frechet:.2f} ({alone.frechet:.2f} by replacement alone), "
            f"jump {best.jump:.2f} ({alone.jump:.2f})"
        )
    if sheet is not None:
        shown = [sheet_rows(report, made, truths, task) for task in (EXTENDED, FILLED_IN)]
        rows, labels = ([one for part in parts for one in part] for parts in zip(*shown, strict=True))
        write_contact_sheet(sheet, list(rows), list(labels), frames, overwrite=True)
    where = {"measure": "reconstruction", "model": model, "split": split, "fps": fps, "guide": guide, "things": names}
    write_json(json_file, {**where, **report.as_dict()})


def _completer(family: Family, fps: float, guide: str) -> "Complete":
    """The family's decoder, completing one clip at a time."""
    import numpy as np
    import torch

    from inflate.cascade.reconstruction import infill_video
    from inflate.video import Video

    chosen = {"num_inference_steps": family.steps, "guidance_scale": family.guidance_scale}

    def complete(frames: "np.ndarray", known: "np.ndarray", weight: float, seed: int) -> "np.ndarray":
        generator, mask = torch.Generator().manual_seed(seed), torch.from_numpy(known)
        options: Any = {"generator": generator, **chosen}
        [pictures] = infill_video(family.cascade, Video(frames, fps), mask, weight, guide=guide, **options).frames or [
            []
        ]
        return np.stack([np.asarray(picture) for picture in pictures])

    return complete


def _through(family: Family) -> "Callable[[np.ndarray], np.ndarray] | None":
    """Frames through the family's autoencoder and back; None in pixel space."""
    from inflate.evaluate.things import to_unit_range
    from inflate.video import to_uint8

    there_and_back = family.reconstruct()
    if there_and_back is None:
        return None
    return lambda frames: to_uint8(there_and_back(to_unit_range(frames)).transpose(0, 1)[None] * 2 - 1)[0]
