"""convert, inspect, verify, deflate as a user types them: what they print and how they end."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inflate.checkpoint import load, save
from inflate.cli.app import main
from inflate.inflater import SCHEMES
from tests.checkpoint.original_layouts import ldm_unet
from tests.inflater.tiny_models import build, perturb
from tests.killed import Paused


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    build("sd15").save_pretrained(tmp_path / "image")
    return tmp_path / "image"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_there_and_back(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, again = tmp_path / "video", tmp_path / "again"
    assert run("convert", image_folder, video, "--frames", 4) == 0
    printed = capsys.readouterr().out
    assert "TemporalConv" in printed and "2 files copied as they were" in printed
    assert run("verify", video) == 0
    assert "bit-for-bit equal on every frame" in capsys.readouterr().out
    assert run("inspect", video, "--sites") == 0
    printed = capsys.readouterr().out
    assert "inflated, scheme 'make-a-video'" in printed and "down_blocks.0.resnets.0.conv1" in printed
    assert run("inspect", image_folder, "--scheme", "vdm") == 0
    assert "an image model, not inflated; with scheme 'vdm'" in capsys.readouterr().out
    assert run("deflate", video, again) == 0
    assert "2 files, as they were" in capsys.readouterr().out
    for path in image_folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_json_and_quiet(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", image_folder, tmp_path / "video", "--scheme", "vdm", "--json") == 0
    assert json.loads(capsys.readouterr().out)["report"]["scheme"] == "vdm"
    assert run("inspect", tmp_path / "video", "--json") == 0
    assert json.loads(capsys.readouterr().out)["temporal"]["scheme"] == "vdm"
    assert run("verify", tmp_path / "video", "--json", "--frames", 2) == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True
    assert run("convert", image_folder, tmp_path / "video", "--force", "--temporal-only", "--quiet") == 0
    assert run("inspect", image_folder, "--quiet") == 0
    assert run("verify", image_folder, "--quiet", "--frames", 2) == 0
    assert capsys.readouterr().out == ""
    assert [path.name for path in (tmp_path / "video").iterdir()] == ["temporal.safetensors"]


def test_a_single_file(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, config = tmp_path / "model.safetensors", ("--config", image_folder)
    save_file(ldm_unet(build("sd15").state_dict(), 1), file)
    assert run("inspect", file, *config) == 0
    assert f"{file}: UNet2DConditionModel, F32" in capsys.readouterr().out
    assert run("verify", file, *config, "--frames", 2) == 0
    assert "bit-for-bit equal on every frame" in capsys.readouterr().out
    assert run("convert", file, tmp_path / "video", *config, "--frames", 4) == 0
    assert "image weights rewritten as safetensors, 1 temporal file" in capsys.readouterr().out
    assert run("verify", tmp_path / "video", "--quiet") == 0
    assert run("convert", file, tmp_path / "again", "--quiet") == 2
    assert "name a config.json that describes its image model with --config" in capsys.readouterr().err


def test_a_pickle_and_a_variant_when_asked_for(image_folder: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": ldm_unet(build("sd15").state_dict(), 1)}, tmp_path / "model.ckpt")
    config = ("--config", image_folder, "--quiet")
    video = tmp_path / "video"
    for command in (("inspect", tmp_path / "model.ckpt"), ("verify", tmp_path / "model.ckpt", "--frames", 2)):
        assert run(*command, *config) == 2
        assert run(*command, *config, "--allow-pickle") == 0
    assert run("convert", tmp_path / "model.ckpt", video, *config) == 2 and not video.exists()
    assert run("convert", tmp_path / "model.ckpt", video, *config, "--allow-pickle") == 0
    assert run("verify", video, "--quiet") == 0
    build("sd15", 1).save_pretrained(image_folder, variant="fp16")
    assert run("inspect", image_folder, "--variant", "fp16", "--quiet") == 0
    assert run("verify", image_folder, "--variant", "fp61", "--quiet") == 2
    assert run("convert", image_folder, tmp_path / "fp16", "--variant", "fp16", "--quiet") == 0
    assert {path.name for path in (tmp_path / "fp16").glob("diff*")} == {"diffusion_pytorch_model.fp16.safetensors"}
    assert run("verify", tmp_path / "fp16", "--quiet") == 0


def test_verify_is_honest_about_trained_layers(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("convert", image_folder, tmp_path / "new", "--frames", 2, "--quiet") == 0
    model = load(tmp_path / "new")
    perturb(model)
    save(model, tmp_path / "trained")
    assert run("verify", tmp_path / "trained") == 1
    printed = capsys.readouterr().out
    assert "differs on 2 of 2 frames, first on frame 0" in printed and "trained" in printed
    assert run("verify", tmp_path / "trained", "--quiet") == 1
    assert run("verify", tmp_path / "trained", "--fresh", "--scheme", "vdm", "--frames", 2) == 0
    assert "scheme vdm, 2 frames of 8x8" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_verify_a_bare_config_with_random_weights(
    image_folder: Path, capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    state = torch.random.get_rng_state()
    arguments = ("--frames", 2, "--size", 16, "--seed", 3, "--dtype", dtype)
    assert run("verify", image_folder / "config.json", *arguments) == 0
    printed = capsys.readouterr().out
    assert f"2 frames of 16x16, {dtype} on cpu, seed 3" in printed and "bit-for-bit equal" in printed
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers were used up"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("convert {tmp}/nowhere {tmp}/video", "error: no such folder: {tmp}/nowhere"),
        (
            "convert {tmp} {tmp}/video",
            "error: {tmp} is no model's folder, without a network that can be inflated: "
            "it has neither config.json nor one of unet, decoder, transformer with a config.json in it",
        ),
        (
            "convert {tmp}/image {tmp}/video --scheme make-a-vidoe",
            f"error: unknown scheme 'make-a-vidoe' (did you mean 'make-a-video'?); known: {', '.join(SCHEMES)}",
        ),
        (
            "convert {tmp}/image {tmp}/video --frames 0",
            "error: Invalid value for '--frames': Input should be greater than or equal to 1 "
            "(see 'inflate convert --help')",
        ),
        (
            "convert {tmp}/model.ckpt {tmp}/video",
            "error: {tmp}/model.ckpt is a pickle, a kind of file that may run any code when opened; get the model as "
            "safetensors, or allow reading tensors and nothing else from it with --allow-pickle (allow_pickle=True), "
            "which convert, inspect and import take",
        ),
        (
            "convert {tmp}/truncated {tmp}/video",
            "error: {tmp}/truncated/diffusion_pytorch_model.safetensors is truncated: "
            "its header ends after 42 of {header} bytes; copy it again",
        ),
        (
            "convert {tmp}/misfit {tmp}/video",
            "error: the weights in {tmp}/misfit do not fit its config.json: "
            "'conv_in.weight' has shape (8, 4, 3, 3) and should have (8, 5, 3, 3)",
        ),
        (
            "convert {tmp}/image {tmp}/misfit",
            "error: {tmp}/misfit exists already; choose another name, or replace it with --force (force=True)",
        ),
        ("deflate {tmp}/image {tmp}/video", "error: {tmp}/image is not inflated: it has no temporal.safetensors"),
        ("verify {tmp}/nowhere.json", "error: no such file: {tmp}/nowhere.json"),
        (
            "verify {tmp}/image --dtype float23",
            "error: --dtype is 'float23' (did you mean 'float32'?); use float32, float16, bfloat16.",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    import shutil

    weights = "diffusion_pytorch_model.safetensors"
    (tmp_path / "model.ckpt").write_bytes(b"")
    shutil.copytree(image_folder, tmp_path / "truncated")
    whole = (image_folder / weights).read_bytes()
    (tmp_path / "truncated" / weights).write_bytes(whole[:50])
    shutil.copytree(image_folder, tmp_path / "misfit")
    config = json.loads((image_folder / "config.json").read_text())
    (tmp_path / "misfit" / "config.json").write_text(json.dumps({**config, "in_channels": 5}))
    header = int.from_bytes(whole[:8], "little")
    assert run(*arguments.format(tmp=tmp_path).split()) == 2
    assert capsys.readouterr().err.strip() == sentence.format(tmp=tmp_path, header=header)
    assert not (tmp_path / "video").exists()


def test_a_device_that_is_not_there(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", image_folder, "--device", "cuda:99") == 2
    assert "error: --device 'cuda:99' cannot be used here:" in capsys.readouterr().err


_CONVERTING = """
from importlib import import_module
from inflate.cli.app import main
module = import_module("inflate.checkpoint.converting")
write = module._write_layers
def slow(*arguments):
    pause()
    write(*arguments)
module._write_layers = slow
sys.exit(main(["convert", sys.argv[1], sys.argv[2], "--quiet"]))
"""


def test_of_two_at_once_one_converts_and_the_other_says_so(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "video"
    with Paused(_CONVERTING, image_folder, video) as first:
        for force in ((), ("--force",)):
            assert run("convert", image_folder, video, "--scheme", "vdm", *force) == 2
            [line] = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: Process {first.pid} on ") and "is writing" in line and "wait for it" in line
        first.go_on()
        assert first.process.wait() == 0
    assert run("verify", video, "--quiet") == 0 and load(video).scheme.name == "make-a-video"
    assert {path.name for path in tmp_path.iterdir()} == {"image", "video"}


def test_after_a_killed_conversion_the_next_one_starts_clean(image_folder: Path, tmp_path: Path) -> None:
    video = tmp_path / "video"
    with Paused(_CONVERTING, image_folder, video) as first:
        first.process.kill()
        first.process.wait()
    assert {path.name for path in tmp_path.iterdir()} == {"image", ".video.inflate-partial", ".video.inflate-lock"}
    assert run("convert", image_folder, video, "--quiet") == 0 and run("verify", video, "--quiet") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"image", "video"}
