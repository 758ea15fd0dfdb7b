"""Wrong flags of every command: one sentence, exit code 2, nothing written, and no weights read for them."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from inflate.cli.app import app, main
from inflate.data.writing import write_video
from inflate.stages import ComponentStage
from tests.models.tiny_family import tiny_unet

BUSY = "busy port"  # stands for a port that somebody listens on
GENERATE = ["generate", "sun", "-o", "out.mp4"]
ANIMATE = ["animate", "picture.png", "-o", "out.mp4"]
INTERPOLATE = ["interpolate", "picture.png", "picture.png", "-o", "out.mp4"]
EXTEND = ["extend", "clip.gif", "-o", "out.mp4"]
INFILL = ["infill", "clip.gif", "-o", "out.mp4", "--missing"]
VARY = ["vary", "clip.gif", "-o", "out.mp4"]
RECONSTRUCT = ["interpolate", "clip.gif", "-o", "out.mp4", "--method", "reconstruction"]
UPSCALE = ["upscale", "clip.gif", "-o", "out.mp4"]
EMOJI, IMAGE = "bundled:emoji", "image-model"

WRONG: list[tuple[list[str], str]] = [
    ([*GENERATE, "--seed", str(2**64)], "Invalid value for '--seed'"),
    ([*GENERATE, "--seed", "-1"], "Invalid value for '--seed'"),
    ([*GENERATE, "--device", "meta"], "--device 'meta' cannot be used here"),
    ([*GENERATE, "--device", "cpu:99"], "--device 'cpu:99' cannot be used here"),
    ([*GENERATE, "--device", "xpu"], "--device 'xpu' cannot be used here"),
    ([*GENERATE, "--device", "gpu"], "--device 'gpu' cannot be used here"),
    ([*GENERATE, "--device", ""], "--device"),
    ([*GENERATE, "--dtype", "int8"], "--dtype is 'int8'"),
    ([*GENERATE, "--dtype", "fp16"], "--dtype is 'fp16'"),
    ([*GENERATE, "--transition", "inf"], "--transition is inf"),
    ([*GENERATE, "--transition", "nan"], "--transition"),
    ([*GENERATE, "--transition", "-1"], "Invalid value for '--transition'"),
    ([*GENERATE, "--steps", "decoder=3,decoder=4"], "names 'decoder' twice"),
    ([*GENERATE, "--steps", "decodr=3"], "num_inference_steps names 'decodr' (did you mean 'decoder'?)"),
    ([*GENERATE, "--steps", "0"], "num_inference_steps must lie between 1 and 1000"),
    ([*GENERATE, "--steps", "3.5"], "--steps is '3.5'"),
    ([*GENERATE, "--steps", "1000000000"], "num_inference_steps must lie between 1 and 1000"),
    ([*GENERATE, "--guidance-scale", "nan"], "guidance_scale must lie between 0 and 100"),
    ([*GENERATE, "--guidance-scale", "much"], "--guidance-scale is 'much'"),
    ([*GENERATE, "--guidance-rescale", "2"], "guidance_rescale"),
    ([*GENERATE, "--guidance-rescale", "nan"], "guidance_rescale"),
    ([*GENERATE, "--guidance-oscillate", "inf"], "guidance_oscillate"),
    ([*GENERATE, "--threshold", "2"], "threshold"),
    ([*GENERATE, "--until", "decodr"], "did you mean 'decoder'?"),
    ([*GENERATE, "--until", "prior"], "This model stops before it makes frames"),
    ([*GENERATE, "--fps", "nan"], "fps must be above 0"),
    ([*GENERATE, "--fps", "0"], "fps must be above 0"),
    ([*GENERATE, "--fps", "inf"], "fps must be above 0"),
    ([*GENERATE, "--frames", "0"], "Invalid value for '--frames'"),
    ([*GENERATE, "--frames", str(10**9)], "num_frames must be a whole number"),
    ([*GENERATE, "--frame-skip", "65"], "frame_skip must be a whole number"),
    ([*GENERATE, "--height", "7"], "Invalid value for '--height'"),
    ([*GENERATE, "--height", "64"], "--height and --width are for decoders that draw any size"),
    ([*GENERATE, "--negative-prompt", "blur"], "--negative-prompt is for models that are told a text"),
    ([*GENERATE, "--scale", "0"], "Invalid value for '--scale'"),
    ([*GENERATE, "--scale", str(10**6)], "--scale"),
    ([*GENERATE, "--resample", "cubic"], "--resample is 'cubic'"),
    ([*GENERATE, "--prompt-at", "soon=a moon"], "--prompt-at is 'soon=a moon'"),
    ([*GENERATE, "--prompt-at", "nan=a moon"], "A segment must begin some seconds after"),
    ([*GENERATE, "--prompt-at", "3="], "The prompt of the segment at 3 s is empty"),
    ([*GENERATE, "--model", "nowhere"], "There is no folder nowhere"),
    ([*GENERATE, "--model", "bundled:emojy"], "no bundled family 'emojy' (did you mean 'emoji'?)"),
    ([*GENERATE, "--model", ""], "--model"),
    ([*GENERATE, "--model", "folder"], "it has no model_index.json"),
    ([*GENERATE, "--model", "picture.png"], "picture.png"),
    ([*GENERATE, "--loud"], "No such option"),
    ([*GENERATE, "--lora", "nowhere.safetensors"], "There is no LoRA nowhere.safetensors"),
    ([*GENERATE, "--lora", "text.mp4"], "text.mp4"),
    ([*GENERATE, "--lora", "style.safetensors:nan"], "--lora is 'style.safetensors:nan'"),
    ([*GENERATE, "--lora", "style.safetensors:much"], "--lora is"),
    ([*GENERATE, "--lora", ""], "--lora is ''"),
    ([*GENERATE, "--strength", "0.5"], "--strength goes with --init-image"),
    ([*GENERATE, "--init-image", "picture.png", "--strength", "0"], "strength is 0.0; it must be above 0"),
    ([*GENERATE, "--init-image", "picture.png", "--strength", "nan"], "strength is nan; it must be above 0"),
    ([*GENERATE, "--init-image", "nowhere.png"], "There is no picture nowhere.png"),
    ([*GENERATE, "--init-image", "text.mp4"], "text.mp4 cannot be read as a picture"),
    (["generate", "", "-o", "out.mp4"], "A prompt is empty"),
    (["generate", "-o", "out.mp4"], "Say what to show"),
    (["generate", "sun"], "Missing option"),
    (["generate", "sun", "-o", ""], "The output has no name"),
    (["generate", "sun", "-o", "out.avi"], "it must end in one of .mp4, .webp, .gif"),
    (["generate", "sun", "-o", "file:///tmp/out.mp4"], "is an address"),
    (["generate", "sun", "-o", "https://example.com/out.mp4"], "is an address"),
    (["generate", "sun", "-o", "x" * 300 + ".mp4"], "File name too long"),
    (["generate", "sun", "-o", "picture.png/out.mp4"], "which is a file; name another place"),
    (["generate", "sun", "-o", "folder.mp4"], "folder.mp4 is a folder; name a file"),
    (["generate", "sun", "-o", "clip.gif"], "clip.gif exists"),
    (["animate", "nowhere.png", "-o", "out.mp4"], "There is no picture nowhere.png"),
    (["animate", "folder", "-o", "out.mp4"], "folder is a folder; name a picture in it"),
    (["animate", "text.mp4", "-o", "out.mp4"], "text.mp4 cannot be read as a picture"),
    ([*ANIMATE, "--frames", "0"], "Invalid value for '--frames'"),
    ([*ANIMATE, "--frames", str(10**9)], "num_frames must be a whole number"),
    ([*ANIMATE, "--fps", "nan"], "fps must be above 0"),
    ([*ANIMATE, "--fps", "-8"], "fps must be above 0"),
    ([*ANIMATE, "--steps", "decoder=x"], "--steps is 'decoder=x'"),
    ([*ANIMATE, "--until", "upscalr"], "did you mean 'upscaler'?"),
    ([*ANIMATE, "--device", "meta"], "--device 'meta' cannot be used here"),
    ([*ANIMATE, "--dtype", "int8"], "--dtype is 'int8'"),
    (["animate", "picture.png", "-o", "picture.png"], "it must end in one of"),
    (["animate", "picture.png", "-o", "clip.gif"], "clip.gif exists"),
    ([*INTERPOLATE, "--fps", "inf"], "fps must be above 0"),
    ([*INTERPOLATE, "--method", "blend"], "--method is 'blend'"),
    ([*INTERPOLATE, "--method", "reconstruction"], "not two pictures; give one video"),
    (["interpolate", *["picture.png"] * 3, "-o", "out.mp4"], "takes two pictures or one video, got 3 files"),
    (
        [*RECONSTRUCT, "--guide", "zz"],
        "There is no guidance 'zz'",
    ),
    ([*RECONSTRUCT, "--weight", "inf"], "weight"),
    (["interpolate", "text.mp4", "-o", "out.mp4"], "text.mp4"),
    ([*EXTEND, "--guide", "zz"], "There is no guidance 'zz'"),
    ([*EXTEND, "--weight", "inf"], "weight"),
    ([*EXTEND, "--weight", "nan"], "weight"),
    ([*EXTEND, "--weight", "-1"], "Invalid value for '--weight'"),
    ([*EXTEND, "--method", "guess"], "--method is 'guess'"),
    ([*EXTEND, "--seconds", "nan"], "seconds"),
    ([*EXTEND, "--seconds", "inf"], "seconds"),
    ([*EXTEND, "--seconds", "-3"], "seconds"),
    ([*EXTEND, "--seconds", "0.1"], "The video lasts 0.75 s already"),
    ([*EXTEND, "--seconds", "nan", "--method", "interpolation"], "seconds"),
    ([*EXTEND, "--frames", str(10**9)], "frames"),
    (["extend", "nowhere.mp4", "-o", "out.mp4"], "nowhere.mp4"),
    (["extend", "folder", "-o", "out.mp4"], "folder"),
    ([*INFILL, "3-1"], "--missing is '3-1'"),
    ([*INFILL, "99"], "the video has 6 frames, numbered from 0 to 5"),
    ([*INFILL, "-1"], "--missing"),
    ([*INFILL, ""], "--missing is ''"),
    ([*INFILL, "0-5"], "known"),
    ([*INFILL, "2", "--guide", "zz"], "There is no guidance 'zz'"),
    ([*INFILL, "2", "--weight", "inf"], "weight"),
    ([*VARY, "--fps", "0"], "fps must be above 0"),
    ([*VARY, "--frame-skip", "0"], "Invalid value for '--frame-skip'"),
    (["vary", "text.mp4", "-o", "out.mp4"], "text.mp4"),
    ([*UPSCALE, "--method", "bicubic"], "--method is 'bicubic'"),
    ([*UPSCALE, "--method", "reconstruction", "--weight", "inf"], "weight"),
    ([*UPSCALE, "--until", "decoder"], "no super-resolution stage"),
    ([*UPSCALE, "--steps", "upscaler=0"], "num_inference_steps must lie between 1 and 1000"),
    (["demo", "-o", "picture.png"], "which is a file"),
    (["demo", "-o", "demo", "--fps", "nan"], "fps must be above 0"),
    (["demo", "-o", "demo", "--device", "cpu:99"], "--device 'cpu:99' cannot be used here"),
    (["demo", "-o", "demo", "--model", "folder"], "folder"),
    (["demo", "-o", "demo", "--prompt", ""], "A prompt is empty"),
    (["app", "--port", "70000"], "Invalid value for '--port'"),
    (["app", "--port", "-1"], "Invalid value for '--port'"),
    (["app", "--port", "http"], "Invalid value for '--port'"),
    (["app", "--port", BUSY], "cannot be used"),
    (["app", "--port", "0", "--device", "cpu:99"], "--device 'cpu:99' cannot be used here"),
    (["app", "--port", "0", "--dtype", "int8"], "--dtype is 'int8'"),
    (["app", "--port", "0", "--model", "nowhere"], "There is no folder nowhere"),
    (["convert", IMAGE, "made", "--scheme", "vdn"], "did you mean 'vdm'?"),
    (["convert", IMAGE, "made", "--frames", "0"], "frames"),
    (["convert", IMAGE, "made", "--frames", "-4"], "frames"),
    (["convert", "nowhere", "made"], "nowhere"),
    (["convert", "folder", "made"], "folder is no model's folder"),
    (["convert", IMAGE, "picture.png"], "picture.png"),
    (["convert", IMAGE, "picture.png/made"], "picture.png"),
    (["convert", IMAGE, "full"], "full exists already"),
    (["convert", IMAGE, "full", "--force"], "is no model folder, so it is not replaced even by force"),
    (["convert", IMAGE, "made", "--config", "config.json"], "--config"),
    (["convert", IMAGE, "made", "--variant", "fp8"], "fp8"),
    (["convert", IMAGE, "x" * 300], "File name too long"),
    (["convert", IMAGE, "https://example.com/made"], "is an address"),
    (["inspect", "nowhere"], "nowhere"),
    (["inspect", IMAGE, "--scheme", "vdn"], "did you mean 'vdm'?"),
    (["inspect", IMAGE, "--frames", "0"], "frames"),
    (["inspect", "picture.png"], "picture.png"),
    (["verify", EMOJI, "--device", "meta"], "meta"),
    (["verify", EMOJI, "--device", "cpu:99"], "cpu:99"),
    (["verify", EMOJI, "--dtype", "int8"], "int8"),
    (["verify", EMOJI, "--frames", "0"], "Invalid value for '--frames'"),
    (["verify", EMOJI, "--size", "0"], "Invalid value for '--size'"),
    (["verify", EMOJI, "--seed", str(2**64)], "seed"),
    (["verify", EMOJI, "--seed", "-1"], "seed"),
    (["verify", EMOJI, "--fresh", "--scheme", "vdn"], "did you mean 'vdm'?"),
    (["deflate", "folder", "made"], "folder"),
    (["deflate", "nowhere", "made"], "nowhere"),
    (["import", "nowhere.safetensors", EMOJI, "made"], "nowhere.safetensors"),
    (["import", "text.mp4", EMOJI, "made"], "text.mp4"),
    (["import", "nowhere.safetensors", EMOJI, "made", "--frames", "0"], "Invalid value for '--frames'"),
    (["export", EMOJI, "made", "--to", "mp4"], "mp4"),
    (["export", "nowhere", "made.safetensors", "--to", "animatediff"], "nowhere"),
    (["export", EMOJI, "made.safetensors", "--to", "animatediff"], "animatediff"),
    (["schemes", EMOJI, "--frames", "0"], "Invalid value for '--frames'"),
    (["schemes", "nowhere"], "nowhere"),
    (["prepare", "fluent-emojis"], "No such command"),
    (["finetune"], "Name a recipe, or an image model and clips"),
    (["finetune", "nowhere.toml"], "There is no recipe at nowhere.toml"),
    (["finetune", "folder"], "There is no recipe at folder"),
    (["finetune", "picture.png"], "picture.png is not valid TOML"),
    (["finetune", "--model", EMOJI], "Name the clips to train on"),
    (["finetune", "--model", EMOJI, "--data", "nowhere"], "data.path is nowhere"),
    (["finetune", "--model", "nowhere", "--data", "folder"], "nowhere"),
    (["finetune", "--model", EMOJI, "--data", "folder", "--scheme", "lean"], "has temporal layers of the scheme"),
    (["finetune", "--model", EMOJI, "--data", "folder", "--scheme", "lena"], "did you mean 'lean'?"),
    (["finetune", "--model", EMOJI, "--data", "folder", "--device", "gpu9"], "--device"),
    (["finetune", "--model", EMOJI, "--data", "folder", "--set", "steps"], "--set 'steps' is not of the form"),
    (["finetune", "--model", EMOJI, "--data", "folder", "--set", "train.stepz=4"], "did you mean 'steps'?"),
    (["finetune", "--model", EMOJI, "--data", "folder", "-o", "picture.png"], "output is picture.png, which is a file"),
    (["finetune", "--model", EMOJI, "--data", "folder", "-o", "file:///tmp/run"], "is an address"),
    (["recipe", "nowhere"], "nowhere"),
    (["recipe", EMOJI, "--scheme", "lena"], "lena"),
    (["recipe", EMOJI, "--set", "train.learning_rate=nan"], "learning_rate is nan"),
    (["distill", "nowhere.toml"], "There is no recipe at nowhere.toml"),
    (["assemble", "nowhere.toml", "made"], "There is no role file nowhere.toml"),
    (["assemble", "picture.png", "made"], "picture.png is a file of a kind"),
    (["plan", "nowhere"], "nowhere"),
    (["plan", EMOJI, "--fit", "lots", "--no-measure"], "--fit 'lots' is no size of memory"),
    (["plan", EMOJI, "--device", "tpu", "--no-measure"], "Memory is planned for 'cpu' and 'cuda'"),
    (["plan", EMOJI, "--set", "train.batch_size=0", "--no-measure"], "train.batch_size is 0"),
    (["plan", EMOJI, "--set", "data.num_frames=100000", "--no-measure"], "num_frames is 100000"),
    (["plan", EMOJI, "--scheme", "lena", "--no-measure"], "did you mean 'lean'?"),
    (["evaluate", "denoising", EMOJI, "nowhere"], "nowhere"),
    (["evaluate", "denoising", EMOJI, "folder", "--fps", "8,8"], "--fps is '8,8'"),
    (["evaluate", "denoising", EMOJI, "folder", "--fps", "nan"], "--fps is 'nan'"),
    (["evaluate", "denoising", EMOJI, "folder", "--timesteps", "much"], "--timesteps is 'much'"),
    (["evaluate", "denoising", EMOJI, "folder", "--split", "tset"], "split"),
    (["evaluate", "denoising", EMOJI, "folder", "--device", "cpu:99"], "cpu:99"),
    (["evaluate", "denoising", EMOJI, "folder", "--dtype", "int8"], "int8"),
    (["evaluate", "denoising", EMOJI, "folder", "--seed", str(2**64)], "seed"),
    (["evaluate", "denoising", EMOJI, "folder", "--json", "picture.png/report.json"], "picture.png"),
    (["evaluate", "seams", EMOJI, "--overlap", "1.5"], "overlap"),
    (["evaluate", "seams", EMOJI, "--fps", "nan"], "fps"),
    (["evaluate", "seams", EMOJI, "--guidance-scale", "nan"], "guidance_scale"),
    (["evaluate", "seams", EMOJI, "--sheet", "sheet.mp4"], "it must end in one of .png"),
    (["evaluate", "frechet", EMOJI, "--data", "nowhere"], "nowhere"),
    (["evaluate", "frechet", EMOJI, "--data", "folder", "--part", "3/2"], "--part"),
    (["evaluate", "frechet", EMOJI, "--data", "folder", "--until", "decodr"], "decodr"),
    (["evaluate", "interpolation", EMOJI, "--data", "nowhere"], "nowhere"),
    (["evaluate", "super-resolution", EMOJI, "--data", "folder", "--stage", "decodr"], "decodr"),
    (["evaluate", "reconstruction", EMOJI, "--data", "folder", "--guide", "zz"], "zz"),
    (["evaluate", "reconstruction", EMOJI, "--data", "folder", "--weights", "1,inf"], "--weights"),
]


@pytest.fixture(scope="module")
def busy() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "unet"
    tiny_unet().save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, image_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a command runs in; whatever reads weights there fails."""
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / "picture.png")
    write_video(tmp_path / "clip.gif", np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8), 8)
    shutil.copytree(image_model, tmp_path / "image-model")
    (tmp_path / "text.mp4").write_text("not a video")
    for name in ("folder", "folder.mp4", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ComponentStage, "load", _no_work)
    monkeypatch.setattr("torch.nn.Module.load_state_dict", _no_work)
    return tmp_path


def _no_work(*_: Any, **__: Any) -> None:
    raise RuntimeError("weights are read")


def test_the_table_is_long_enough() -> None:
    assert len(WRONG) >= 95
    commands: Any = get_command(app)
    assert {arguments[0] for arguments, _ in WRONG} == set(commands.commands)


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(row[0])[:80] for row in WRONG])
def test_wrong_flags(
    arguments: list[str], words: str, here: Path, busy: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() if path.is_file() else b"" for path in here.rglob("*")}
    assert main([str(busy) if argument == BUSY else argument for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
    assert words in printed.err and "Traceback" not in printed.err
    assert before == {path: path.read_bytes() if path.is_file() else b"" for path in here.rglob("*")}
