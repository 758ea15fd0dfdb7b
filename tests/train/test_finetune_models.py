"""One command from an image checkpoint and a folder of clips to a video model, for every family that people bring."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

import inflate
from inflate.checkpoint.single_file import recognise_layout
from inflate.cli.app import main
from inflate.train.encodings import ClipEncodings
from tests.bases.families import build, parts_of
from tests.checkpoint.original_layouts import ldm_unet

FAMILIES = (
    "stable-diffusion",
    "stable-diffusion-v",
    "stable-diffusion-xl",
    "pixart",
    "pixart-sigma",
    "sana",
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
        stream.codec_context.thread_count = 1  # with several, x264's bytes are not the same each time
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


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "kandinsky"])
def test_the_export_generates_a_video(family: str, clips: Path, tmp_path: Path) -> None:
    model = build(family, tmp_path / "model")
    parts = [f'options.parts.{role}="{folder}"' for role, folder in parts_of(family, model).items()]
    run = tmp_path / "run"
    folder = labelled(clips, tmp_path) if family == "dit" else clips
    assert finetune(model, folder, run, *parts, steps=1) == 0
    prompt = {"unconditional": [], "dit": ["goldfish"]}.get(family, ["red sea"])
    video = tmp_path / "video.mp4"
    more = ["--until", "decoder"] if family == "inflate" else []
    arguments = ["generate", *prompt, "--model", str(run / "export"), "--steps", "2"]
    assert main([*arguments, "-o", str(video), "--device", "cpu", "--quiet", *more]) == 0
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4  # as many as it was trained on


def test_the_export_generates_at_the_size_and_rate_it_was_trained_at(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, run, video = build("stable-diffusion", tmp_path / "model"), tmp_path / "run", tmp_path / "video.mp4"
    assert finetune(model, clips, run, "data.size=[16, 32]", "data.fps=[4.0]", "data.num_frames=3", steps=1) == 0
    assert json.loads((model / "model_index.json").read_text()).get("_inflate") is None
    assert StableDiffusionPipeline.from_pretrained(run / "export", local_files_only=True).unet is not None
    capsys.readouterr()
    named = ["--model", str(model), "--data", str(clips), "-o", str(run), "--device", "cpu"]
    small = settings("data.size=[16, 32]", "data.fps=[4.0]", "data.num_frames=3", steps=1)
    assert main(["finetune", *named, *small]) == 0
    [said] = [line for line in capsys.readouterr().out.splitlines() if "inflate generate" in line]
    assert "--fps 4 " in said
    arguments = ["generate", "red sea", "--model", str(run / "export"), "--fps", "4", "--steps", "2"]
    assert main([*arguments, "-o", str(video), "--device", "cpu", "--quiet"]) == 0
    with av.open(str(video)) as container:
        shapes = [(frame.height, frame.width) for frame in container.decode(video=0)]
    assert shapes == [(16, 32)] * 3


@pytest.mark.parametrize("captions", [True, False])
def test_what_is_typed_next_is_a_caption_or_no_clips_name(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], captions: bool
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in [*clips.glob("*.mp4"), *(clips.glob("*.txt") if captions else ())]:
        (data / path.name).write_bytes(path.read_bytes())
    assert finetune(build("stable-diffusion", tmp_path / "model"), data, tmp_path / "run", steps=1) == 0
    named = ["--model", str(tmp_path / "model"), "--data", str(data), "-o", str(tmp_path / "run"), "--device", "cpu"]
    capsys.readouterr()
    assert main(["finetune", *named, *settings(steps=1)]) == 0
    [said] = [line for line in capsys.readouterr().out.splitlines() if "inflate generate" in line]
    prompts = ["red", "a red bus", "see", "bus", "red sea"] if captions else ["a prompt"]
    assert any(said.startswith(f'inflate generate "{prompt}" --model') for prompt in prompts)


def test_kandinsky_says_how_it_gets_its_prior(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decoder is a folder of its own; what is said next is typed as it is, with the steps of a test."""
    model, run = build("kandinsky", tmp_path / "model"), tmp_path / "run"
    parts = [f'options.parts.{role}="{folder}"' for role, folder in parts_of("kandinsky", model).items()]
    named = ["--model", str(model), "--data", str(clips), "-o", str(run), "--device", "cpu"]
    assert main(["finetune", *named, *settings(*parts, steps=1)]) == 0
    typed = capsys.readouterr().out.partition("Next:\n")[2].splitlines()
    assert typed[0].startswith("printf ") and typed[1].startswith("inflate generate ")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["sh", "-c", typed[0]], check=True)
    assert main([*shlex.split(typed[1])[1:], "--steps", "2", "--device", "cpu", "--quiet"]) == 0
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_one_video_is_held_out_by_noise(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No other video can be held out, so its own frames are, at noise that training never draws."""
    model, run, folder = build("stable-diffusion", tmp_path / "model"), tmp_path / "run", tmp_path / "one"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes((clips / "clip0.mp4").read_bytes())
    named = ["--model", str(model), "--data", str(folder), "-o", str(run), "--device", "cpu"]
    assert main(["finetune", *named, *settings("train.validate_every=2", steps=4)]) == 0
    assert "With one video no other can be held out" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    held_out = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert len(held_out) == 3 and held_out[-1] < held_out[0]
    assert finetune(model, folder, tmp_path / "none", "data.validation=0", steps=2) == 0
    assert "validation_loss" not in (tmp_path / "none" / "log.jsonl").read_text()


def test_quiet_says_nothing_and_no_samples_are_none(
    clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build("stable-diffusion", tmp_path / "model")
    capfd.readouterr()
    assert finetune(model, clips, tmp_path / "run", "options.sample_clips=0", steps=1) == 0
    said = capfd.readouterr()
    assert not said.out and not [line for line in said.err.splitlines() if "%" in line]
    assert not list((tmp_path / "run").rglob("*.mp4")) and (tmp_path / "run" / "export").is_dir()


def test_a_single_file_with_a_base_becomes_a_whole_pipeline(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's own weights, bit for bit, under diffusers' names; the text encoder and autoencoder are the base's."""
    model, run, file = build("stable-diffusion", tmp_path / "model"), tmp_path / "run", tmp_path / "mine.safetensors"
    theirs = load_file(next((model / "unet").glob("*.safetensors")))
    mine = {name: value + 0.01 for name, value in theirs.items()}
    save_file({name: value.contiguous() for name, value in ldm_unet(mine, 1).items()}, file)
    config = model / "unet" / "config.json"
    shape = json.loads(config.read_text())
    # A file is recognised by its shapes, and no published model is as small as this one.
    monkeypatch.setattr(
        "inflate.checkpoint.single_file.recognise",
        lambda path, shapes, metadata: (recognise_layout(path, shapes, config, "UNet2DConditionModel"), shape),
    )
    assert finetune(file, clips, run, f'options.parts.base="{model}"') == 0
    made = load_file(next((run / "export" / "unet").glob("diffusion_pytorch_model*.safetensors")))
    assert made.keys() == mine.keys() and all(torch.equal(made[name], value) for name, value in mine.items())
    before, after = sums(model), sums(run / "export")
    assert all(after[place] == value for place, value in before.items() if not place.startswith("unet"))
    pipeline = StableDiffusionPipeline.from_pretrained(run / "export", local_files_only=True)
    assert torch.equal(pipeline.unet.conv_in.weight, mine["conv_in.weight"])
    arguments = ["generate", "red sea", "--model", str(run / "export"), "--steps", "2", "-o", str(tmp_path / "out.gif")]
    assert main([*arguments, "--device", "cpu", "--quiet"]) == 0


def test_what_is_exported_can_be_read_by_whom_the_umask_lets(clips: Path, tmp_path: Path) -> None:
    """safetensors 0.8 makes files for their owner alone (findings/safetensors_file_mode.sh)."""
    model, run = build("stable-diffusion", tmp_path / "model"), tmp_path / "run"
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert finetune(model, clips, run, "options.trainable=temporal+lora", "options.sample_clips=0", steps=1) == 0
    made = [path for path in (run / "export").rglob("*") if path.is_file() and path.stat().st_nlink == 1]
    assert {path.name for path in made} >= {"pytorch_lora_weights.safetensors", "temporal.safetensors"}
    assert all(path.stat().st_mode == usual for path in made)
    inflate.Cascade.from_pretrained(run / "export", device="cpu").save_pretrained(tmp_path / "saved")
    saved = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert saved and all(path.stat().st_mode == usual for path in saved)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_while_clips_are_encoded_what_was_encoded_is_kept(
    number: int,
    code: int,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    model, run, cache = (
        build("stable-diffusion", tmp_path / "model"),
        tmp_path / "run",
        f'data.cache="{tmp_path}/cache"',
    )
    # Whoever started the tests may have had them ignore it, as shells do of what runs in their background.
    started = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(number, started))
    encode, encoded, before = ClipEncodings._encode_latents, [], signal.getsignal(number)

    def counted(self: ClipEncodings, window: int, frames: np.ndarray | None = None) -> torch.Tensor:
        encoded.append(window)
        if len(encoded) == 3:
            os.kill(os.getpid(), number)
        return encode(self, window, frames)

    monkeypatch.setattr(ClipEncodings, "_encode_latents", counted)
    assert finetune(model, clips, run, cache, steps=1) == code
    assert "Stopped while" in capsys.readouterr().err and signal.getsignal(number) is before
    assert finetune(model, clips, run, cache, steps=1) == 0
    assert len(encoded) == len(set(encoded)) + 1  # only the third began twice
