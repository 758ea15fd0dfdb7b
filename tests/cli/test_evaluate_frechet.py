"""``inflate evaluate frechet`` on a whole chain of tiny networks: what is made, kept, shared and refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inflate
from inflate.cli.app import main
from inflate.models.prior import PriorStage
from tests.cli.test_evaluate_stages import family as family
from tests.cli.toys import write_cache

SIZE = 32


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "frames", SIZE, of_test=2)


def frechet(data: Path, *arguments: Any) -> int:
    common = ["evaluate", "frechet", "toys", "--data", data, "--size", SIZE, "--prompts", 2, "--frames", 3, "--quiet"]
    return main([str(argument) for argument in (*common, *arguments)])


def test_the_whole_chain_shared_by_two_runs(
    family: inflate.Cascade,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep, report_file, sheet = tmp_path / "kept", tmp_path / "report.json", tmp_path / "sheet.png"
    assert frechet(data, "--keep", keep, "--part", "1/2", "--json", report_file) == 0
    assert "part 1/2 is done: 2 of 4 clips are in" in capsys.readouterr().out and not report_file.exists()
    assert frechet(data, "--keep", keep, "--part", "2/2", "--json", report_file, "--sheet", sheet) == 0
    printed = capsys.readouterr().out
    report = json.loads(report_file.read_text())
    assert [row["name"] for row in report["rows"]] == [
        "other real clips", "the whole chain", "image model frame by frame"
    ]  # fmt: skip
    assert all(row[key] > 0 for row in report["rows"] for key in ("clips", "frames", "change"))
    assert report["sampling"] == {"num_frames": 11, "fps": 40.0, "step": 1, "pairs": 8} and report["size"] == SIZE
    assert "| image model frame by frame |" in printed and "frames compared at 32 px" in printed
    # 16 px by 4 by 2 is 128 px, kept at the size of the data: eight pairs of frames each.
    clips = {path.name: np.load(path) for path in keep.glob("*.npy")}
    assert len(clips) == 4 and {clip.shape for clip in clips.values()} == {(16, SIZE, SIZE, 3)}
    with Image.open(sheet) as picture:
        assert picture.height > 6 * SIZE

    def refuse(*arguments: object) -> None:
        raise AssertionError("a kept clip was made again")

    monkeypatch.setattr(PriorStage, "__call__", refuse)
    again = tmp_path / "again.json"
    assert frechet(data, "--keep", keep, "--json", again) == 0
    assert json.loads(again.read_text()) == report
    next(iter(keep.glob("*.npy"))).unlink()
    assert frechet(data, "--keep", keep) == 1
    assert "a kept clip was made again" in capsys.readouterr().err
    assert frechet(data, "--keep", keep, "--seed", 1) == 2
    assert "were made with another seed" in capsys.readouterr().err


def test_until_the_decoder_a_clip_is_what_the_chain_draws_and_frames_are_drawn_alone(
    family: inflate.Cascade, data: Path, tmp_path: Path
) -> None:
    keep, report_file = tmp_path / "kept", tmp_path / "report.json"
    assert frechet(data, "--until", "decoder", "--keep", keep, "--json", report_file) == 0
    report = json.loads(report_file.read_text())
    assert report["sampling"] == {"num_frames": 3, "fps": 8.0, "step": 1, "pairs": 2} and report["size"] == 16
    chain, alone = (np.load(min(keep.glob(f"{kind}*.npy"))) for kind in ("the-whole", "image-model"))
    assert chain.shape == alone.shape == (4, 16, 16, 3)
    # Pairs (0, 1) and (1, 2) of the chain's clip: the middle frame comes twice; what is drawn alone never does.
    assert np.array_equal(chain[1], chain[2]) and len(np.unique(chain, axis=0)) == 3
    assert len(np.unique(alone, axis=0)) == 4


def test_a_gap_between_the_frames_of_a_pair(family: inflate.Cascade, data: Path, tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"
    arguments = ["--until", "interpolation", "--gap", 5, "--pairs", 3, "--json", report_file]
    assert frechet(data, *arguments) == 0
    report = json.loads(report_file.read_text())
    assert report["sampling"] == {"num_frames": 11, "fps": 40.0, "step": 5, "pairs": 3}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--part", "1/2"], "--part needs --keep"),
        (["--part", "3/2", "--keep", "kept"], "--part is '3/2'; give a number and how many parts"),
        (["--until", "prior"], "there are no frames before the decoder"),
        (["--until", "decodr"], "did you mean 'decoder'"),
        (["--prompts", "3"], "cannot choose 3 prompts: the data has 2 names"),
        (["--steps", "decoder=x"], "--steps"),
        (["--until", "decoder", "--gap", "3"], "3 frames have no pair of frames 3 apart"),
    ],
)
def test_bad_input_is_one_sentence_and_2(
    family: inflate.Cascade,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert frechet(data, *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("error:") == 1
    assert not (tmp_path / "kept").exists()
