"""`inflate plan` on a folder that holds a config alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel

from inflate.cli.app import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sizes: dict[str, Any] = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "sample_size": 8}
    with torch.device("meta"):
        network = DiTTransformer2DModel(in_channels=4, num_embeds_ada_norm=20, **sizes)
    (tmp_path / "config.json").write_text(json.dumps({**network.config, "_class_name": "DiTTransformer2DModel"}))
    return tmp_path


def test_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(folder), "--no-measure", "--device", "cpu", "--set", "train.steps=50"]) == 0
    shown = capsys.readouterr().out
    for words in ("image weights", "temporal layers", "gradients", "optimizer", "activations", "in all", "50 updates"):
        assert words in shown
    assert "s an update" not in shown


def test_json_and_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", str(folder), "--no-measure", "--device", "cpu", "--json"]
    assert main([*command, "--fit", "64GB"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fit"]["set"] == [] and answer["fit"]["total"] == answer["total"] and answer["step_seconds"] is None
    assert main([*command, "--fit", "1KB"]) == 0
    assert json.loads(capsys.readouterr().out)["fit"] is None


def test_nothing_fits_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(folder), "--no-measure", "--device", "cuda", "--fit", "1MB"]) == 0
    assert "Nothing fits 1MB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fit", "lots"], "no size of memory"),
        (["--device", "tpu"], "tpu"),
        (["--set", "data.size=3"], "multiple"),
        (["--scheme", "unheard"], "unheard"),
    ],
)
def test_bad_input_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["plan", str(folder), "--no-measure", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
