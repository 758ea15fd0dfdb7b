"""One command from an image checkpoint and a folder of clips to a video model, for every family that people bring."""

import hashlib
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import inflate
from inflate.cli.app import main
from tests.bases.families import build, parts_of

FAMILIES = (
    "stable-diffusion",
    "stable-diffusion-v",
    "stable-diffusion-xl",
    "pixart",
    "pixart-sigma",
    "sd3",
    "flux",
    "dit",
    "karlo",
    "kandinsky",
    "inflate",
    "unconditional",
)


def write_clip(path: Path, seed: int, frames: int = 12, size: tuple[int, int] = (32, 32)) -> None:
    """A square that moves over noise that stays, 8 frames a second."""
    rng = np.random.default_rng(seed)
    height, width = size
    ground = rng.integers(0, 200, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = ground.copy()
            left = (3 * number + seed) % (width - 8)
            picture[8:20, left : left + 8] = (255, 40, 40)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number, caption in enumerate(("red", "a red bus", "see", "bus", "red sea")):
        write_clip(folder / f"clip{number}.mp4", number)
        (folder / f"clip{number}.txt").write_text(caption)
    return folder


def labelled(clips: Path, tmp_path: Path) -> Path:
    """The clips with a class's name, or its number, as captions."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    for number, path in enumerate(sorted(clips.glob("*.mp4"))):
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.with_suffix(".txt").name).write_text("goldfish" if number % 2 else "0")
    return folder


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file below a folder, by its place."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
        if path.name != "temporal.safetensors"
    }


def settings(*more: str, steps: int = 3) -> list[str]:
    values = (
        f"train.steps={steps}",
        "data.num_frames=4",
        "data.min_motion=0",
        "data.workers=0",
        "options.sample_steps=2",
        "options.sample_clips=1",
        "train.learning_rate=1e-2",
        "train.ema_decay=0.5",
        *more,
    )
    return [part for value in values for part in ("--set", value)]


def finetune(model: Path, clips: Path, run: Path, *more: str, steps: int = 3) -> int:
    named = ["--model", str(model), "--data", str(clips), "-o", str(run), "--device", "cpu", "--quiet"]
    return main(["finetune", *named, *settings(*more, steps=steps)])


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines() if '"loss"' in line]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_checkpoint_becomes_a_video_model(family: str, clips: Path, tmp_path: Path) -> None:
    model = build(family, tmp_path / "model")
    parts = [f'options.parts.{role}="{folder}"' for role, folder in parts_of(family, model).items()]
    before, run = sums(model), tmp_path / "run"
    folder = labelled(clips, tmp_path) if family == "dit" else clips
    assert finetune(model, folder, run, *parts) == 0
    assert len(losses(run)) == 3 and np.isfinite(losses(run)).all()
    export = run / "export"
    assert sums(model) == before
    made = sums(export)
    assert all(made[place] == value for place, value in before.items())  # the very files that were brought
    [temporal] = export.rglob("temporal.safetensors")
    trained = inflate.load(temporal.parent)
    started = inflate.inflate(trained.image_model.__class__.from_config(trained.config), trained.scheme, 4)
    started_state = started.temporal_state_dict()
    changed = [n for n, v in trained.temporal_state_dict().items() if not torch.equal(v, started_state[n])]
    assert changed  # the random starts differ too; what started at zero is looked at next
    assert any(v.abs().sum() > 0 for n, v in load_file(temporal).items() if n.endswith(("to_out.weight", "bias")))


@pytest.mark.parametrize("family", ["stable-diffusion", "flux", "dit", "unconditional", "inflate"])
def test_the_export_generates_a_video(family: str, clips: Path, tmp_path: Path) -> None:
    model = build(family, tmp_path / "model")
    run = tmp_path / "run"
    folder = labelled(clips, tmp_path) if family == "dit" else clips
    assert finetune(model, folder, run, steps=1) == 0
    prompt = {"unconditional": [], "dit": ["goldfish"]}.get(family, ["red sea"])
    video = tmp_path / "video.mp4"
    more = ["--until", "decoder"] if family == "inflate" else []
    arguments = ["generate", *prompt, "--model", str(run / "export"), "--frames", "4", "--fps", "8", "--steps", "2"]
    assert main([*arguments, "-o", str(video), "--device", "cpu", "--quiet", *more]) == 0
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
