"""Is frame interpolation better than blending and optical flow, and super-resolution than bicubic enlargement?"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

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

if TYPE_CHECKING:
    from inflate.evaluate.methods import Rows
    from inflate.evaluate.super_resolution import SuperResolutionReport
    from inflate.evaluate.things import Things

Clips = Annotated[int | None, typer.Option(help="How many clips; default: all of the split.", min=1)]
StageSteps = Annotated[int | None, typer.Option(help="Sampling steps of the stage; default: the family's own.", min=1)]
Fps = Annotated[float, typer.Option(help="Frame rate of the clips.")]

WITHOUT_DECODER = "without frame decoder"
WITHOUT_TEMPORAL = "without temporal layers"
SHARED, INDEPENDENT = "SR_h, shared noise", "SR_h, independent noise"
_SHEET_CLIPS = 4
_SR_STAGES = ("super_resolution", "upscaler")


def interpolation(
    data: DataOption,
    model: ModelOrBundled = "bundled:emoji",
    size: Annotated[int | None, typer.Option(help="Side of frames in pixels; default: the decoder's.", min=8)] = None,
    skip: Annotated[int, typer.Option(help="One frame in so many is known.", min=2)] = 5,
    tail: Annotated[int, typer.Option(help="How many frames at the end are extrapolated.", min=1)] = 4,
    split: Split = "test",
    clips: Clips = None,
    fps: Fps = 24.0,
    frames: Frames = 16,
    without_frame_decoder: Annotated[
        bool, typer.Option("--without-frame-decoder", help="Measure frame interpolation also without that part.")
    ] = False,
    sheet: Sheet = None,
    seed: Seed = 0,
    steps: StageSteps = None,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Are new frames nearer to the true ones than those of blending, minterpolate and optical flow?"""
    from inflate import InputError
    from inflate.evaluate.interpolation import REPEAT, evaluate_interpolation, markdown_table
    from inflate.evaluate.methods import interpolation_rows, interpolator, without_component

    check_asked(json_file, sheet, data, split, fps)
    family = Family(model, device, dtype)
    stage = family.stage("interpolation")
    settings = family.settings(stage, steps)
    methods = {"↑F": interpolator(stage, settings, family.embed())}
    if without_frame_decoder:
        if "frame_decoder" not in stage.components:
            raise InputError(f"{model} has no frame decoder that --without-frame-decoder could leave out")
        plain = without_component(stage, "frame_decoder")
        methods[f"↑F {WITHOUT_DECODER}"] = interpolator(plain, settings, family.embed())
    things = read_things(data, family.frame_size(size), quiet)
    with progress_bar("clips", len(things.choose(split, clips, seed)), quiet) as advance:
        report = evaluate_interpolation(methods, things, split, clips, frames, fps, skip, tail, seed, advance)
    typer.echo(markdown_table(report))
    typer.echo(
        f"{split} split, {report.clips} clips of {frames} frames at {fps:g} fps, {report.size} px: ↑F lies "
        f"{report.gain('↑F'):+.2f} dB over {report.best_reference.name}, the best method without training, and after "
        f"the last known frame {report.gain_after('↑F'):+.2f} dB over {REPEAT}"
    )
    if sheet is not None:
        shown = things.choose(split, clips, seed)[:_SHEET_CLIPS]
        made = {name: interpolation_rows(methods, things.clip_of(name, fps, frames), skip, fps, seed) for name in shown}
        write_sheet(sheet, _labelled(made, things), columns=16)
    about = {"measure": "interpolation", "model": model, "split": split, "steps": settings.num_inference_steps}
    write_json(json_file, about | report.as_dict())


def super_resolution(
    data: DataOption,
    model: ModelOrBundled = "bundled:emoji",
    stage: Annotated[
        str | None, typer.Option(help="super_resolution or upscaler alone; default: those the family has.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the true frames in pixels.", min=8)] = 256,
    split: Split = "test",
    clips: Clips = None,
    fps: Fps = 8.0,
    frames: Frames = 16,
    through_autoencoder: Annotated[
        bool,
        typer.Option("--through-autoencoder", help="Give SR_l^t frames that the decoder's autoencoder has blurred."),
    ] = False,
    sheet: Sheet = None,
    seed: Seed = 0,
    steps: StageSteps = None,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Is super-resolution nearer to the truth than bicubic enlargement, and steadier than without its layers in time?

    SR_l^t is measured at its own sizes beside itself without temporal layers, and SR_h, which makes frames larger than
    the data's, one octave lower, beside itself with noise of its own for every frame.
    """
    from inflate.evaluate.features import EfficientNetFeatures
    from inflate.evaluate.methods import super_resolution_rows
    from inflate.evaluate.super_resolution import evaluate_super_resolution, markdown_table

    _check_stage(stage)
    check_asked(json_file, sheet, data, split, fps)
    features, family = EfficientNetFeatures(), Family(model, device, dtype)
    wanted = [stage] if stage else [name for name in _SR_STAGES if family.cascade.stage(name)] or [_SR_STAGES[0]]
    measured = {name: _upscalers(family, name, steps) for name in wanted}
    degrade = family.degrade() if through_autoencoder else None
    things = read_things(data, size, quiet)
    chosen, tables, rows = things.choose(split, clips, seed), {}, {}
    with progress_bar("clips", len(chosen) * len(wanted), quiet) as advance:
        for name, methods in measured.items():
            scale, blur = family.stage(name).config.scale, degrade if name == "super_resolution" else None
            tables[name] = evaluate_super_resolution(
                methods, things, features, scale, split, clips, seed, frames, fps, blur, advance
            )
            for thing in chosen[: _SHEET_CLIPS if sheet is not None else 0]:
                made = super_resolution_rows(methods, things.clip_of(thing, fps, frames), scale, fps, seed, blur)
                rows |= _labelled({thing: made}, things, f" ({name})")
    for name, report in tables.items():
        typer.echo(
            f"{name}, {size // report.scale} px to {size} px\n{markdown_table(report)}\n{_verdict(name, report)}"
        )
    if sheet is not None:
        write_sheet(sheet, rows, columns=6)
    about = {"measure": "super_resolution", "model": model, "split": split, "autoencoder": through_autoencoder}
    write_json(json_file, about | {name: report.as_dict() for name, report in tables.items()})


def _check_stage(stage: str | None) -> None:
    from inflate.errors import InputError, nearest

    if stage is not None and stage not in _SR_STAGES:
        raise InputError(f"--stage is {stage!r}{nearest(stage, _SR_STAGES)}; use {' or '.join(_SR_STAGES)}")


def _labelled(made: "dict[str, Rows]", things: "Things", after: str = "") -> "Rows":
    """Rows of several things as one: each says what it is and of what, in letters that the sheet's font has."""
    return {
        f"{label.replace('↑F', 'F')}: {things.caption(name)}{after}": pictures
        for name, rows in made.items()
        for label, pictures in rows.items()
    }


def _upscalers(family: Family, name: str, steps: int | None) -> dict[str, Any]:
    """A stage beside itself without what is to make it steady."""
    from inflate.evaluate.methods import upscaler, with_config

    stage = family.stage(name)
    settings = family.settings(stage, steps)
    if name == "upscaler":
        shared, own = (with_config(stage, shared_noise=shared) for shared in (True, False))
        return {SHARED: upscaler(shared, settings), INDEPENDENT: upscaler(own, settings)}
    methods = {"SR_l^t": upscaler(stage, settings)}
    if stage.has_temporal_layers():
        methods[f"SR_l^t {WITHOUT_TEMPORAL}"] = upscaler(stage.without_temporal_layers(), settings)
    return methods


def _verdict(name: str, report: "SuperResolutionReport") -> str:
    """The sentence of one stage: its gain over bicubic, and its flicker beside its rival's."""
    own, *rivals = report.rows[1:]
    bicubic = report.rows[0]
    nearer = "nearer than" if own.feature_distance < bicubic.feature_distance else "not nearer than"
    sentence = (
        f"{report.clips} clips of {report.num_frames} frames at {report.fps:g} fps: {own.name} lies "
        f"{report.psnr_over_bicubic(own.name):+.2f} dB over bicubic and in EfficientNet-Lite0 features {nearer} it"
    )
    for rival in rivals:
        less = "less than" if own.flicker < rival.flicker else "not less than"
        sentence += f"; its flicker of {own.flicker:+.5f} is {less} the {rival.flicker:+.5f} of {rival.name}"
    if name == "super_resolution" and not rivals:
        sentence += "; it has no temporal layers to leave out"
    return sentence
