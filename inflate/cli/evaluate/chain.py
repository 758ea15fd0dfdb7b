"""How far do the clips of the whole chain lie from real ones, beside unrelated pictures of the same things?"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.checks import parse_by_stage
from inflate.cli.evaluate.family import Family, read_things
from inflate.cli.evaluate.options import (
    DataOption,
    Device,
    Dtype,
    Frames,
    Json,
    ModelOrBundled,
    Quiet,
    Seed,
    Sheet,
    Split,
    check_asked,
    progress_bar,
    write_json,
    write_sheet,
)
from inflate.cli.options import FrameSkip, Steps, Until
from inflate.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from inflate.evaluate.clip_frechet import FrechetReport
    from inflate.evaluate.kept import KeptClips
    from inflate.evaluate.things import Things

_SHEET_CLIPS = 6
_LARGEST_DATA = 256  # pixels; emoji of the data are no larger


def frechet(
    data: DataOption,
    model: ModelOrBundled = "bundled:emoji",
    prompts: Annotated[int, typer.Option(help="How many things with a real clip to prompt.", min=2)] = 50,
    split: Split = "test",
    until: Until = None,
    frames: Frames = 16,
    fps: Annotated[float, typer.Option(help="Frame rate of the decoder.")] = 8.0,
    frame_skip: FrameSkip = 5,
    size: Annotated[
        int | None, typer.Option(help="Side at which real frames are read; default: the chain's, at most 256.", min=8)
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs of frames looked at in each clip.", min=1)] = 8,
    gap: Annotated[int, typer.Option(help="How many frames the second of a pair lies after the first.", min=1)] = 1,
    keep: Annotated[
        Path | None, typer.Option(help="Keep clips in this folder: the same command again goes on from there.")
    ] = None,
    part: Annotated[str, typer.Option(help="Make the clips of one part of the prompts, such as 1/2 and 2/2.")] = "1/1",
    sheet: Sheet = None,
    seed: Seed = 0,
    steps: Steps = "",
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Are generated clips nearer to real ones than unrelated pictures of the same things are?

    The Fréchet distance in EfficientNet-Lite0 features of frames and of their change in time, to real clips of the
    prompted things: of the whole chain's clips, of other real clips, and of the image model repeated frame by frame,
    which draws every frame that is looked at by itself; the same super-resolution follows.
    """
    from inflate.evaluate.clip_frechet import FRAME_BY_FRAME, GENERATED
    from inflate.evaluate.kept import KeptClips
    from inflate.evaluate.retrieval import choose_names

    number, parts = _part(part, keep)
    check_asked(json_file, sheet, data, split, fps)
    family = Family(model, device, dtype)
    side = size or min(family.output_size(until), _LARGEST_DATA)
    things = read_things(data, side, quiet)
    chosen = choose_names(things.names(split, with_clip=True), prompts, seed)
    chosen_steps = parse_by_stage("--steps", steps, int)
    chain = _Chain(family, things, until, frames, fps, frame_skip, pairs, gap, seed, chosen_steps)
    kept = KeptClips(keep, chain.description(split))
    makers = {GENERATED: chain.generated, FRAME_BY_FRAME: chain.frame_by_frame()}
    mine = [(kind, name) for name in chosen[number - 1 :: parts] for kind in makers if not kept.has(kind, name)]
    with progress_bar("clips", len(mine), quiet) as advance:
        for kind, name in mine:
            kept.put(kind, name, makers[kind](name))
            advance()
    missing = [name for name in chosen for kind in makers if not kept.has(kind, name)]
    if missing:
        there, total = 2 * len(chosen) - len(missing), 2 * len(chosen)
        typer.echo(f"part {part} is done: {there} of {total} clips are in {keep}; the figures come with the last")
        return
    report = _report(kept, chain, chosen, seed, quiet)
    if sheet is not None:
        _write_sheet(sheet, kept, chain, chosen, list(makers))
    write_json(json_file, {"measure": "frechet", **chain.description(split), **report.as_dict()})


def _report(kept: "KeptClips", chain: "_Chain", chosen: list[str], seed: int, quiet: bool) -> "FrechetReport":
    """Measure and print."""
    from inflate.evaluate.clip_frechet import (
        FRAME_BY_FRAME,
        GENERATED,
        REAL,
        count_described,
        evaluate_frechet,
        markdown_table,
    )
    from inflate.evaluate.features import EfficientNetFeatures

    features = EfficientNetFeatures()
    made = {kind: _clips_of(kept, kind, chosen) for kind in (GENERATED, FRAME_BY_FRAME)}
    with progress_bar("features", count_described(chain.things, chosen, len(made)), quiet) as advance:
        report = evaluate_frechet(made, chain.things, chosen, chain.sampling, features, seed, advance)
    ours, image_model, real = (report.row(name).clips for name in (GENERATED, FRAME_BY_FRAME, REAL))
    typer.echo(markdown_table(report))
    typer.echo(
        f"{len(chosen)} prompts, frames compared at {report.size} px: clips of the whole chain lie at {ours:.2f} from "
        f"real ones, other real clips at {real:.2f}, the image model frame by frame at {image_model:.2f}, "
        f"{image_model / ours if ours else float('inf'):.2f} times as far as the chain's"
    )
    return report


class _Chain:
    """The family at work on one thing, by the whole chain and frame by frame; hands out the sampled frames."""

    def __init__(
        self,
        family: Family,
        things: "Things",
        until: str | None,
        frames: int,
        fps: float,
        frame_skip: int,
        pairs: int,
        gap: int,
        seed: int,
        steps: Any,
    ) -> None:
        from inflate.evaluate.clip_frechet import Sampling

        self.family, self.things, self.until, self.seed = family, things, until, seed
        self.frames, self.fps, self.frame_skip, self.steps = frames, fps, frame_skip, steps
        stages = [stage.name for stage in family.cascade.up_to(until)]
        if "decoder" not in stages:
            raise InputError(f"--until is {until!r}, and there are no frames before the decoder")
        skip = frame_skip if "interpolation" in stages else 1
        count = (frames - 1) * skip + 1
        self.sampling = Sampling(count, fps * skip, gap, max(1, min(pairs, count - gap)))
        # Refused here if the clips are too short, and not once the first is made.
        self.sampling.indices()

    def description(self, split: str) -> dict[str, object]:
        """What a clip depends on."""
        from inflate.evaluate.kept import folder_fingerprint

        cascade = self.family.cascade
        settings = {name: asdict(values) for name, values in cascade.settings(self.steps).items()}
        return {
            "model": self.family.model,
            "weights": folder_fingerprint(cascade.folder),
            "dtype": str(cascade.dtype).removeprefix("torch."),
            "split": split,
            "until": self.until,
            "sampling": asdict(self.sampling),
            "largest_side": self.things.cache.size,
            "seed": self.seed,
            "settings": settings,
        }

    def generated(self, name: str) -> "np.ndarray":
        """Frames of the whole chain's clip of a thing, uint8 ``(2 P, S, S, 3)``."""
        made = self._make(self.family.cascade, name, self.frames, self.fps, self.frame_skip)
        return self._pixels(made[self.sampling.indices()])

    def frame_by_frame(self) -> "Callable[[str], np.ndarray]":
        """What makes the same of the image model alone, with the following super-resolution.

        Only the frames that are looked at are drawn: what else lay between them would not change them.
        """
        from inflate.cascade import Cascade

        own = self.family.cascade
        stages = [self.family.image_decoder() if stage.name == "decoder" else stage for stage in own.stages]
        cascade = Cascade(stages, own.device, own.dtype, keep_loaded=True)
        return lambda name: self._pixels(self._make(cascade, name, 2 * self.sampling.pairs, self.sampling.fps, 1))

    def _make(self, cascade: Any, name: str, frames: int, fps: float, frame_skip: int) -> "torch.Tensor":
        """A clip ``(F, 3, S, S)`` in [0, 1]."""
        import torch

        from inflate.evaluate.family import prompt_seed

        made = cascade(
            self.things.caption(name),
            num_frames=frames,
            fps=fps,
            generator=torch.Generator().manual_seed(prompt_seed(self.seed, name)),
            num_inference_steps=self.steps,
            output_type="pt",
            until=self.until,
            frame_skip=frame_skip,
        )
        return made.frames[0]

    def _pixels(self, frames: "torch.Tensor") -> "np.ndarray":
        """Frames as uint8 ``(N, S, S, 3)``, no larger than the data's."""
        import torch

        from inflate.evaluate.clip_frechet import shrink_to

        pixels = (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return shrink_to(pixels, min(pixels.shape[1], self.things.cache.size))


def _part(part: str, keep: Path | None) -> tuple[int, int]:
    """``2/3`` as numbers."""
    left, _, right = part.partition("/")
    numbers = (int(left), int(right)) if left.isdecimal() and right.isdecimal() else (0, 0)
    if not 1 <= numbers[0] <= numbers[1]:
        raise InputError(f"--part is {part!r}; give a number and how many parts there are, such as 1/2")
    if numbers[1] > 1 and keep is None:
        raise InputError("--part needs --keep, the folder where the parts come together")
    return numbers


def _clips_of(kept: "KeptClips", kind: str, names: list[str]) -> "list[np.ndarray]":
    clips = [kept.get(kind, name) for name in names]
    return [clip for clip in clips if clip is not None]


def _write_sheet(path: Path, kept: "KeptClips", chain: _Chain, chosen: list[str], kinds: list[str]) -> None:
    """For the first prompts: the sampled frames of the real clip and of each made one."""
    sampling, rows = chain.sampling, {}
    for name in chosen[:_SHEET_CLIPS]:
        caption, real = chain.things.caption(name), chain.things.clip_frames(name, sampling.fps, sampling.num_frames)
        rows[f"real: {caption}"] = real[sampling.indices()]
        rows |= {f"{kind}: {caption}": _clips_of(kept, kind, [name])[0] for kind in kinds}
    write_sheet(path, rows, columns=16)
