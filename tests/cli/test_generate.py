import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from inflate.cli.app import main
from inflate.cli.checks import parse_by_stage
from inflate.cli.generate import numbered
from inflate.errors import InputError
from tests.models.tiny_family import save_tiny_family, tiny_unet, tiny_video_unet


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The image model alone, so that these tests are of the command and not of the temporal file.
    return save_tiny_family(tmp_path_factory.mktemp("family") / "tiny", tiny_unet())


@pytest.fixture(scope="module")
def video_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_family(tmp_path_factory.mktemp("family") / "tiny-video", tiny_video_unet())


def generate(family: Path, *arguments: Any) -> int:
    return main(["generate", *map(str, arguments), "--model", str(family), "--device", "cpu", "--frames", "4"])


def read(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), float(stream.average_rate or 0)


def test_a_prompt_becomes_a_video_and_a_sheet(family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mp4"
    assert generate(family, "party popper", "-o", out, "--fps", 12, "--scale", 2) == 0
    frames, fps = read(out)
    assert frames.shape == (4, 32, 32, 3) and fps == 12
    with Image.open(tmp_path / "out.sheet.png") as sheet:
        assert sheet.width == 4 * 36 + 4
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out), str(tmp_path / "out.sheet.png")]
    assert "done in" in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "out.sheet.png"]


def test_several_prompts_are_numbered_and_each_comes_out_as_it_does_alone(family: Path, tmp_path: Path) -> None:
    assert generate(family, "sun", "red heart", "-o", tmp_path / "out.gif", "--seed", 3, "--quiet") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-1.gif", "out-2.gif", "out.sheet.png"]
    assert generate(family, "red heart", "-o", tmp_path / "alone.gif", "--seed", 3, "--no-sheet", "--quiet") == 0
    assert (tmp_path / "alone.gif").read_bytes() == (tmp_path / "out-2.gif").read_bytes()
    assert (tmp_path / "alone.gif").read_bytes() != (tmp_path / "out-1.gif").read_bytes()
    assert generate(family, "red heart", "-o", tmp_path / "other.gif", "--seed", 4, "--no-sheet", "--quiet") == 0
    assert (tmp_path / "alone.gif").read_bytes() != (tmp_path / "other.gif").read_bytes()


def test_the_report_names_the_files_and_the_settings(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.webp"
    arguments = ("sun", "-o", out, "--steps", "prior=2,decoder=4", "--guidance-scale", 1.5, "--seed", 7)
    arguments += ("--guidance-rescale", "0.5", "--guidance-oscillate", "decoder=1")
    plain = {"guidance_scale": 1.5, "noise_level": 0.0, "cost": 1.0}
    plain |= {"guidance_rescale": 0.0, "guidance_oscillate": None, "threshold": None}
    plain |= {"guidance_interval": None, "reuse": 1}
    assert generate(family, *arguments, "--json", "--save-settings") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["videos"] == [str(out)] and report["sheet"] == str(tmp_path / "out.sheet.png")
    settings = report["settings"]
    assert settings["stages"] == {
        "prior": plain | {"num_inference_steps": 2},
        "decoder": plain | {"num_inference_steps": 4, "guidance_rescale": 0.5, "guidance_oscillate": 1.0},
    }
    assert (settings["seed"], settings["frames"], settings["prompts"]) == (7, 4, ["sun"])
    assert json.loads((tmp_path / "out.json").read_text()) == settings


def test_quiet_says_nothing(family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(family, "sun", "-o", tmp_path / "out.gif", "--quiet") == 0
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sun", "-o", "out.avi"], "out.avi ends in '.avi'; it must end in one of .mp4, .webp, .gif."),
        (["", "-o", "out.gif"], "A prompt is empty; say in a few words what the video should show."),
        (["sun", "-o", "out.gif", "--steps", "many"], "--steps is 'many'; give a number or one per stage"),
        (
            ["sun", "-o", "out.gif", "--steps", "decodr=3"],
            "num_inference_steps names 'decodr' (did you mean 'decoder'?)",
        ),
        (["sun", "-o", "out.gif", "--steps", "0"], "num_inference_steps must lie between 1 and 1000, got 0."),
        (["sun", "-o", "out.gif", "--resample", "nearst"], "--resample is 'nearst' (did you mean 'nearest'?)"),
        (["sun", "-o", "out.gif", "--dtype", "float8"], "use float32, float16, bfloat16."),
        (["sun", "-o", "out.gif", "--device", "gpu"], "--device 'gpu' cannot be used here"),
        (["sun", "-o", "out.gif", "--fps", "0"], "fps must be above 0"),
        (["sun", "-o", "out.gif", "--device", "meta"], "--device 'meta' cannot be used here; name cpu, or a GPU"),
        (["sun", "-o", "out.gif", "--device", "cpu:99"], "--device 'cpu:99' cannot be used here; name cpu, or a GPU"),
        (["sun", "-o", "out.gif", "--transition", "inf"], "--transition is inf; give a number of seconds."),
        (["sun", "-o", "out.gif", "--seed", str(2**64)], "Invalid value for '--seed'"),
        (["sun", "-o", "out.gif", "--steps", "decoder=3,decoder=4"], "names 'decoder' twice; give each stage one"),
        (["sun", "-o", ""], "The output has no name; give a file such as out.mp4."),
        (["sun", "-o", "file:///tmp/out.gif"], "is an address; name a place on this machine."),
        (["sun", "-o", "https://example.com/out.gif"], "is an address; name a place on this machine."),
        (["sun", "-o", "x" * 300 + ".gif"], "The output's name cannot be used (File name too long)."),
        (["sun", "-o", f"{__file__}/out.gif"], "which is a file; name another place."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    family: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    device = [] if "--device" in arguments else ["--device", "cpu"]
    assert main(["generate", *arguments, "--model", str(family), *device]) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and sentence in printed and "\n" not in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("existing", ["out.gif", "out.sheet.png", "out.json"])
def test_existing_files_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], existing: str
) -> None:
    (tmp_path / existing).write_text("mine")
    # A model that is not there: the refusal comes first.
    assert generate(tmp_path / "none", "sun", "-o", tmp_path / "out.gif", "--save-settings") == 2
    assert f"{tmp_path / existing} exists" in capsys.readouterr().err
    assert (tmp_path / existing).read_text() == "mine"


def test_force_replaces(family: Path, tmp_path: Path) -> None:
    (tmp_path / "out.gif").write_text("mine")
    assert generate(family, "sun", "-o", tmp_path / "out.gif", "--force", "--quiet") == 0
    assert (tmp_path / "out.gif").read_bytes()[:3] == b"GIF"


def test_a_missing_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(tmp_path / "none", "sun", "-o", tmp_path / "out.gif") == 2
    assert "There is no folder" in capsys.readouterr().err
    assert generate(tmp_path, "sun", "-o", tmp_path / "out.gif") == 2
    assert "it has no model_index.json" in capsys.readouterr().err


def test_numbers_for_all_stages_or_by_stage() -> None:
    assert parse_by_stage("--steps", "", int) is None
    assert parse_by_stage("--steps", "12", int) == 12
    assert parse_by_stage("--guidance-scale", "prior=1, decoder=2.5", float) == {"prior": 1.0, "decoder": 2.5}
    with pytest.raises(InputError, match="such as 15 or prior=10,decoder=15"):
        parse_by_stage("--steps", "prior=1,2", int)
    assert numbered(Path("a/out.mp4"), 3) == Path("a/out-3.mp4")


def test_the_demo_shows_before_and_after(
    video_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--model", str(video_family), "--device", "cpu", "-o", str(tmp_path / "demo")]
    arguments += ["--prompt", "sun", "--prompt", "moon"]
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["rows"]) == 2, "the image model, and the decoder"
    assert "inflated against image model: bit-for-bit equal on every frame" in printed.err
    assert json.loads(printed.out)["verify"] == "bit-for-bit equal on every frame"
    frames, fps = read(tmp_path / "demo" / "demo.mp4")
    assert frames.shape == (4, 256, 256, 3) and fps == 5, "this family ends with the decoder, at 16 px"
    frames, fps = read(tmp_path / "demo" / "before-after.mp4")
    assert frames.shape == (4, 2 * 16 * 3, 2 * 16 * 3, 3) and fps == 5
    above, below = frames[:, :48].astype(int), frames[:, 48:].astype(int)
    assert np.abs(above - below).mean() > 1, "trained temporal layers change the video"
    assert (tmp_path / "demo" / "inflated-image-model" / "temporal.safetensors").is_file()
    # The files of a folder that was named are kept unless asked.
    assert main(arguments) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*arguments, "--force", "--quiet"]) == 0


def long(family: Path, *arguments: Any) -> int:
    steps = ("--steps", "prior=2,decoder=1", "--frame-skip", 1, "--quiet")
    return main(["generate", *map(str, arguments), *map(str, steps), "--model", str(family), "--device", "cpu"])


def test_a_long_video_is_streamed_and_shows_one_thing_after_another(video_family: Path, tmp_path: Path) -> None:
    assert long(video_family, "sun", "-o", tmp_path / "plain.mp4", "--frames", 40, "--scale", 2) == 0
    frames, fps = read(tmp_path / "plain.mp4")
    assert frames.shape == (40, 32, 32, 3) and fps == 8
    with Image.open(tmp_path / "plain.sheet.png") as sheet:
        assert sheet.width == 16 * 36 + 4
    changed = ("--prompt-at", "3=red heart", "--transition", 0, "--save-settings")
    assert long(video_family, "sun", "-o", tmp_path / "two.mp4", "--frames", 40, "--scale", 2, *changed) == 0
    both, _ = read(tmp_path / "two.mp4")
    assert (both[:15] != frames[:15]).mean() < (both[-5:] != frames[-5:]).mean()
    assert json.loads((tmp_path / "two.json").read_text())["prompt_at"] == ["3=red heart"]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("moon", "give SECONDS=TEXT"), ("3=", "segment at 3 s is empty"), ("9=moon", "within the video's 1 s")],
)
def test_a_bad_prompt_at_is_told(
    video_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, sentence: str
) -> None:
    out = tmp_path / "out.mp4"
    assert long(video_family, "sun", "-o", out, "--frames", 8, "--prompt-at", option) == 2
    assert sentence in capsys.readouterr().err and not out.exists()


def test_options_of_guidance_are_checked(family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value, message in (
        ("--guidance-rescale", "2", "guidance_rescale must lie between 0 and 1, got 2.0"),
        ("--guidance-oscillate", "high", "--guidance-oscillate is 'high'; give a number or one per stage"),
        ("--guidance-oscillate", "prior=1", "The stage 'prior' knows no guidance_oscillate"),
        ("--threshold", "0.995", "this decoder draws latents"),
    ):
        assert generate(family, "sun", "-o", tmp_path / "out.gif", "--steps", 2, option, value) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_a_gif_after_an_mp4_of_the_same_stem_has_its_own_sheet(family: Path, tmp_path: Path) -> None:
    for name in ("out.mp4", "out.gif"):
        assert generate(family, "sun", "-o", tmp_path / name, "--save-settings", "--quiet") == 0
    made = {"out.mp4", "out.sheet.png", "out.json", "out.gif", "out.gif.sheet.png", "out.gif.json"}
    assert {path.name for path in tmp_path.iterdir()} == made
    assert generate(family, "sun", "-o", tmp_path / "out.gif", "--quiet") == 2, "its own files are not replaced"


@pytest.mark.parametrize(("device", "said"), [("cuda:99", "torch finds no graphics card"), ("warp", "give cpu, cuda")])
def test_a_card_that_is_not_there(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str, said: str
) -> None:
    assert main(["generate", "sun", "-o", str(tmp_path / "out.gif"), "--model", str(family), "--device", device]) == 2
    printed = capsys.readouterr().err.strip()
    assert f"--device {device!r} cannot be used here" in printed and said in printed and "\n" not in printed


def test_what_a_gif_cannot_show_and_what_is_cropped_is_said(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (32, 16), "red").save(tmp_path / "wide.png")
    arguments = ("sun", "-o", tmp_path / "out.gif", "--init-image", tmp_path / "wide.png", "--no-sheet")
    assert generate(family, *arguments, "--fps", 60, "--steps", "decoder=4") == 0
    told = capsys.readouterr().err
    assert "Frames of 16 x 16 px begin as the centre of a picture of 32 x 16; 50 % at the edges is cropped." in told
    assert "Browsers show 50 frames of a gif a second at most, not 60" in told
    assert generate(family, *arguments, "--fps", 60, "--steps", "decoder=4", "--force", "--quiet") == 0
    assert not capsys.readouterr().err
    Image.new("RGB", (20, 20), "red").save(tmp_path / "wide.png")
    assert generate(family, *arguments, "--fps", 10, "--steps", "decoder=4", "--force") == 0
    told = capsys.readouterr().err
    assert "cropped" not in told and "Browsers" not in told


def test_a_long_video_says_how_long_it_takes_first(
    video_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("inflate.cascade.timing._LONG", 20)
    monkeypatch.setattr("inflate.models.decoder.DecoderStage.seconds", lambda stage, state, *rest: 300.0)
    steps = ["--steps", "prior=2,decoder=1", "--frame-skip", "1", "--model", str(video_family), "--device", "cpu"]
    assert main(["generate", "sun", "moon", "-o", str(tmp_path / "two.mp4"), "--frames", "24", *steps]) == 0
    said = capsys.readouterr().err
    assert "48 frames of 16 x 16 px: about 10 min on this machine." in said and (tmp_path / "two-2.mp4").is_file()
    assert long(video_family, "sun", "-o", tmp_path / "quiet.mp4", "--frames", 24) == 0
    assert not capsys.readouterr().err
