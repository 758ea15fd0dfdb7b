"""``inflate evaluate interpolation | super-resolution`` on a family of tiny networks and six pictures that fade."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import inflate
from inflate.cli.app import main
from inflate.evaluate import features
from tests.cli.toys import tiny_chain, write_cache
from tests.models.tiny_family import tiny_cascade

SIZE = 32


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "frames", SIZE, of_test=2)


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> inflate.Cascade:
    """What ``Cascade.from_pretrained("toys")`` returns, without files; and a small network in EfficientNet's place."""

    class Network(torch.nn.Module):
        def extract_features(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(pictures, 4).flatten(1)[:, :, None, None]

    made = tiny_chain()
    monkeypatch.setattr(inflate.Cascade, "from_pretrained", lambda *arguments, **options: made)
    monkeypatch.setattr(features, "load_network", lambda device: Network())
    return made


def evaluate(*arguments: Any) -> int:
    return main(["evaluate", *(str(argument) for argument in arguments), "--quiet"])


def test_interpolation_beside_all_references(
    family: inflate.Cascade, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_file, sheet = tmp_path / "out" / "report.json", tmp_path / "sheet.png"
    arguments = ["interpolation", "toys", "--data", data, "--size", SIZE, "--frames", 6, "--tail", 2]
    more = ["--without-frame-decoder", "--json", report_file, "--sheet", sheet]
    assert evaluate(*arguments, *more) == 0
    report = json.loads(report_file.read_text())
    assert (report["measure"], report["split"], report["clips"], report["size"]) == ("interpolation", "test", 2, SIZE)
    assert (report["skip"], report["tail"], report["steps"], report["fps"]) == (5, 2, 1, 24)
    psnr = {row["name"]: row["psnr"] for row in report["between"]}
    assert list(psnr) == [
        "repeat", "linear blend", "minterpolate", "optical flow (DIS)", "↑F", "↑F without frame decoder"
    ]  # fmt: skip
    assert psnr["↑F"] != psnr["↑F without frame decoder"] and psnr["linear blend"] > psnr["repeat"]
    best = max(list(psnr.values())[:4])
    assert report["gain"]["↑F"] == pytest.approx(psnr["↑F"] - best)
    printed = capsys.readouterr().out
    assert f"{psnr['↑F']:.2f}" in printed and f"↑F lies {psnr['↑F'] - best:+.2f} dB over" in printed
    with Image.open(sheet) as picture:
        assert picture.height > 2 * 7 * SIZE and picture.width > 6 * SIZE


def test_super_resolution_beside_its_rivals(
    family: inflate.Cascade, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_file, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    arguments = ["super-resolution", "toys", "--data", data, "--size", SIZE, "--frames", 3, "--clips", 1]
    assert evaluate(*arguments, "--json", report_file, "--sheet", sheet) == 0
    report = json.loads(report_file.read_text())
    low, high = report["super_resolution"], report["upscaler"]
    assert (low["scale"], high["scale"], low["size"], high["size"]) == (4, 2, SIZE, SIZE)
    assert [row["name"] for row in low["rows"]] == ["bicubic", "SR_l^t", "SR_l^t without temporal layers"]
    assert [row["name"] for row in high["rows"]] == ["bicubic", "SR_h, shared noise", "SR_h, independent noise"]
    for rows in (low["rows"], high["rows"]):
        assert len({row["psnr"] for row in rows}) == 3 and len({row["flicker"] for row in rows}) == 3
        assert all(row["feature_distance"] > 0 for row in rows)
    printed = capsys.readouterr().out
    for _, ours, rival in (low["rows"], high["rows"]):
        less = "less than" if ours["flicker"] < rival["flicker"] else "not less than"
        sentence = f"its flicker of {ours['flicker']:+.5f} is {less} the {rival['flicker']:+.5f} of {rival['name']}"
        assert sentence in printed
    assert "upscaler, 16 px to 32 px" in printed and "super_resolution, 8 px to 32 px" in printed
    gain = low["psnr_over_bicubic"]["SR_l^t"]
    assert f"SR_l^t lies {gain:+.2f} dB over bicubic" in printed
    with Image.open(sheet) as picture:
        assert picture.height > 6 * SIZE

    blurred = tmp_path / "blurred.json"
    arguments += ["--stage", "super_resolution", "--through-autoencoder", "--json", blurred]
    assert evaluate(*arguments) == 0
    worse = json.loads(blurred.read_text())
    assert "upscaler" not in worse and worse["super_resolution"]["rows"][0]["psnr"] < low["rows"][0]["psnr"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["interpolation"], "bundled:emoji has no interpolation stage, which this measures; it has prior, decoder"),
        (["super-resolution"], "bundled:emoji has no super-resolution stage, which this measures"),
        (["super-resolution", "--stage", "upscaler"], "bundled:emoji has no upscaler stage"),
        (["super-resolution", "--stage", "upscale"], "--stage is 'upscale' (did you mean 'upscaler'?)"),
        (["interpolation", "--sheet", "sheet.jpg"], "must end in one of .png"),
    ],
)
def test_a_family_without_the_stage_is_one_sentence_and_2(
    family: inflate.Cascade,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.setattr(inflate.Cascade, "from_pretrained", lambda *arguments, **options: tiny_cascade())
    assert evaluate(*arguments, "--data", data) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_what_does_not_fit_is_one_sentence_and_2(
    family: inflate.Cascade, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("interpolation", "--data", data) == 2
    assert "holds frames of 32 px and the model makes 16 px" in capsys.readouterr().err
    assert evaluate("interpolation", "--data", data, "--size", SIZE, "--skip", 4) == 2
    assert "do not begin and end with a known frame at skip 4" in capsys.readouterr().err
    del family.stages[2].components["frame_decoder"]  # pyright: ignore[reportAttributeAccessIssue]
    assert evaluate("interpolation", "--data", data, "--without-frame-decoder") == 2
    assert "no frame decoder that --without-frame-decoder could leave out" in capsys.readouterr().err
