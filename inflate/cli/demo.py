"""``inflate demo``: an image model is inflated before one's eyes and becomes the middle of the whole chain."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.checks import check_device, check_dtype
from inflate.cli.options import AsJson, Device, Dtype, Force, Model, Quiet, Seed
from inflate.cli.reporting import progress_bar
from inflate.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from inflate.cascade import Cascade
    from inflate.stages import ChainState

DEMO_FOLDER = Path("out/demo")
DEMO_PROMPTS = ("rocket", "party popper", "beating heart")
_FRAME_SKIP = 5
_SHOWN = 256  # pixels: how large a frame is shown; smaller ones are enlarged
_COLUMNS = 6
_TITLES = {
    "decoder": "D^t: {frames} frames that belong together, {size} px",
    # The sheet's font has no arrow.
    "interpolation": "F: {frames} frames; here two neighbours of the row above and the new ones between them",
    "super_resolution": "SR_l^t: {frames} frames of {size} px",
    "upscaler": "SR_h: {frames} frames of {size} px",
}


def register(app: typer.Typer) -> None:
    """Add ``demo``."""
    app.command()(demo)


def demo(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help=f"Folder for the files; default {DEMO_FOLDER}, renewed each time."),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="A prompt of your own; may be repeated: the first goes through every stage."),
    ] = None,
    model: Model = "bundled:emoji",
    fps: Annotated[float, typer.Option(help="Key frames per second.")] = 5,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Inflate the bundled image model before your eyes, then send a prompt through every stage: a video and a sheet."""
    from inflate.cascade import Cascade, family_folder
    from inflate.cascade.inputs import Timing, first_state
    from inflate.data.writing import check_output, enlarge, write_contact_sheet, write_video

    prompts = prompts or list(DEMO_PROMPTS)
    folder, force = output or DEMO_FOLDER, force or output is None
    video_path, sheet_path, pair_path = folder / "demo.mp4", folder / "demo.sheet.png", folder / "before-after.mp4"
    for path, suffix in ((video_path, ".mp4"), (sheet_path, ".png"), (pair_path, ".mp4")):
        check_output(path, (suffix,), force)
    start, say = time.monotonic(), _Narrator(quiet)
    family, torch_dtype = family_folder(model), check_dtype(dtype)
    cascade = Cascade.from_pretrained(family, check_device(device), torch_dtype, keep_loaded=True)
    first_state(prompts, None, Timing(1, fps, _FRAME_SKIP), None)  # refused before anything is loaded
    with say("Loading the parts"):
        import inflate

        trained = inflate.load(family / "unet", dtype=torch_dtype)
    inflated, sentence = _inflate_anew(family, trained, folder / "inflated-image-model", force, say)
    _decoder_of(cascade).components["unet"] = inflated
    first = first_state(prompts, None, Timing(trained.num_frames, fps, _FRAME_SKIP), _generators(seed, len(prompts)))
    with say("P and D: videos with the new layers untrained, so that every frame is a picture of its own"):
        before = _run(cascade, first, quiet, until="decoder")
    with say("Giving the new layers the trained weights"):
        inflated.load_temporal_state_dict(trained.temporal_state_dict())
    with say("P and D^t: the same videos with the trained layers, so that the frames belong together"):
        after = _run(cascade, first, quiet, until="decoder")
    rows = [(f"D: “{prompts[0]}”, each frame a picture of its own, {_side(before)} px", _picture(before))]
    one = _rest_of_chain(cascade, after, rows, quiet, say)
    with say(f"Writing {video_path}, {sheet_path} (a row per stage) and {pair_path} (above untrained, below trained)"):
        large = enlarge(_picture(one), max(1, _SHOWN // _side(one)), "lanczos")
        write_video(video_path, large, one.fps, overwrite=force)
        write_video(pair_path, _above_each_other(before, after), fps, overwrite=force)
        shown = [_as_shown(frames) for _, frames in rows]
        write_contact_sheet(sheet_path, shown, [label for label, _ in rows], _COLUMNS, overwrite=force)
    seconds = round(time.monotonic() - start, 1)
    say.line(f"Done in {seconds} s.")
    if as_json:
        report = {"video": str(video_path), "sheet": str(sheet_path), "before_after": str(pair_path)}
        report |= {"prompts": prompts, "verify": sentence, "rows": [label for label, _ in rows], "seconds": seconds}
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))


def _inflate_anew(family: Path, trained: Any, folder: Path, force: bool, say: "_Narrator") -> tuple[Any, str]:
    """The image model that ``trained`` was made from, inflated anew and saved; and what comparing the two said."""
    import inflate
    from inflate.checkpoint import find_source, load_image_model
    from inflate.evaluate.equality import verify

    source = find_source(family / "unet")
    with say(f"Reading the image model ({source.image_model_class.__name__}), which knows nothing of video"):
        image_model = load_image_model(source, dtype=trained.dtype)
    with say("Inflating it: temporal layers after its convolutions and attention blocks"):
        inflated = inflate.inflate(image_model, scheme=trained.scheme, num_frames=trained.num_frames).eval()
        inflate.save(inflated, folder, force)
    new, old = (sum(p.numel() for p in ps) for ps in (inflated.temporal_parameters(), image_model.parameters()))
    say.line(f"  {old / 1e6:.1f}M parameters of the image model, {new / 1e6:.1f}M new ones; saved as {folder}")
    with say("Comparing both models on the same noise"):
        sentence = verify(inflated).sentence()
    say.line(f"  inflated against image model: {sentence}")
    return inflated, sentence


def _decoder_of(cascade: "Cascade") -> Any:
    decoder = cascade.stage("decoder")
    if decoder is None:
        raise InputError("This model has no stage 'decoder'; the demo needs one.")
    return decoder


def _generators(seed: int, count: int) -> list[Any]:
    # As `inflate generate` does: each prompt has the whole seed to itself.
    import torch

    return [torch.Generator().manual_seed(seed) for _ in range(count)]


def _run(cascade: "Cascade", state: "ChainState", quiet: bool, until: str) -> "ChainState":
    with progress_bar(quiet) as on_step:
        return cascade.run(state, None, on_step, until)


def _rest_of_chain(
    cascade: "Cascade", state: "ChainState", rows: "list[tuple[str, np.ndarray]]", quiet: bool, say: "_Narrator"
) -> "ChainState":
    """The first video through the stages after the decoder; ``rows`` grows by a title and frames for each stage."""
    assert state.frames is not None and state.image_embeds is not None, "the decoder has run"
    first = {"prompts": state.prompts[:1], "seeds": state.seeds[:1], "image_embeds": state.image_embeds[:1]}
    state = replace(state, **first, frames=state.frames[:1])
    rows.append((_title("decoder", state), _picture(state)))
    for stage in cascade.stages:
        if not stage.done(state):
            with say(f"{stage.name}, for “{state.prompts[0]}”"):
                state = _run(cascade, state, quiet, until=stage.name)
            shown = _one_step_of(state) if stage.name == "interpolation" else _picture(state)
            rows.append((_title(stage.name, state), shown))
    return state


def _one_step_of(state: "ChainState") -> "np.ndarray":
    """A key frame from the middle, the new ones after it and the next key frame: frames far apart are all key ones."""
    frames = _picture(state)
    start = (len(frames) // 2) // _FRAME_SKIP * _FRAME_SKIP
    return frames[start : start + _FRAME_SKIP + 1]


def _picture(state: "ChainState", video: int = 0) -> "np.ndarray":
    """One video of the state as uint8 (F, H, W, 3)."""
    from inflate.video import to_uint8

    assert state.frames is not None, "the decoder has run"
    return to_uint8(state.frames[video : video + 1])[0]


def _side(state: "ChainState") -> int:
    assert state.frames is not None, "the decoder has run"
    return state.frames.shape[-1]


def _title(stage: str, state: "ChainState") -> str:
    assert state.frames is not None, "the decoder has run"
    text = _TITLES.get(stage, stage + ": {frames} frames of {size} px")
    text = text.format(frames=state.frames.shape[2], size=_side(state))
    return text + ", the middle part" if _side(state) > _SHOWN else text


def _as_shown(frames: "np.ndarray") -> "np.ndarray":
    """Frames for the sheet: whole ones enlarged to about 256 pixels, or the middle 256 pixels of larger ones."""
    from inflate.data.writing import enlarge

    side = frames.shape[1]
    if side > _SHOWN:
        corner = (side - _SHOWN) // 2
        return frames[:, corner : corner + _SHOWN, corner : corner + _SHOWN]
    return enlarge(frames, max(1, _SHOWN // side))


def _above_each_other(above: "ChainState", below: "ChainState") -> "np.ndarray":
    import numpy as np

    from inflate.data.writing import enlarge

    rows = [
        np.concatenate([_picture(state, video) for video in range(len(state.seeds))], axis=2)
        for state in (above, below)
    ]
    return enlarge(np.concatenate(rows, axis=1), 3, "lanczos")


class _Narrator:
    """Says what is being done while it is done, and how long it took."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def line(self, text: str) -> None:
        if not self.quiet:
            typer.echo(text, err=True)

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        self.line(f"{what} …")
        start = time.monotonic()
        yield
        self.line(f"  {time.monotonic() - start:.1f} s")
