"""``inflate schemes``: the table, alone and for a model."""

import json
from pathlib import Path

import pytest

from inflate.cli.app import main
from inflate.inflater import SCHEMES, report
from tests.inflater.tiny_models import build


def test_the_table_names_every_scheme(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["scheme"] for row in rows] == list(SCHEMES)
    assert all(row["adds"] and row["source"] for row in rows)
    starts = {row["scheme"] for row in rows if row["start"] != "the image model"}
    assert starts == {"tune-a-video", "text2video-zero", "spacetime-dit"}
    assert main(["schemes"]) == 0
    assert "make-a-video" in capsys.readouterr().out


def test_the_cost_for_a_model_is_the_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_model = build("sd15")
    image_model.save_config(tmp_path)
    assert main(["schemes", str(tmp_path / "config.json"), "--frames", "30", "--size", "16", "--json"]) == 0
    rows = {row["scheme"]: row for row in json.loads(capsys.readouterr().out)}
    assert "temporal blocks go between the blocks of a transformer" in rows["latte"]["refused"]
    expected = report(image_model, "video-ldm", 30, (16, 16))
    assert rows["video-ldm"]["new_parameters"] == expected.new_parameters
    assert rows["video-ldm"]["flop_ratio"] == 1 + (expected.flop_ratio or 0) > 1
    assert rows["animatediff-v1"]["new_parameters"] > 0, "counted with the 24 frames it has positions for"
    assert rows["text2video-zero"]["new_parameters"] == 0
    assert rows["lean"]["flop_ratio"] < rows["make-a-video"]["flop_ratio"]
    assert main(["schemes", str(tmp_path / "config.json"), "--size", "16"]) == 0
    assert "does not apply" in capsys.readouterr().out
    assert main(["schemes", str(tmp_path / "nothing.json")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_arithmetic_that_was_not_counted_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("lumina2").save_pretrained(tmp_path)
    config = str(tmp_path / "config.json")
    assert main(["schemes", config, "--frames", "2", "--size", "8", "--json"]) == 0
    rows = {row["scheme"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["latte"]["flop_ratio"] is None and rows["latte"]["new_parameters"] > 0
    assert main(["schemes", config, "--frames", "2", "--size", "8"]) == 0
    assert "not counted" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path), "--scheme", "latte", "--frames", "2"]) == 0
    assert "its arithmetic cannot be counted without weights" in capsys.readouterr().out
