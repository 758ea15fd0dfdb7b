"""Pipelines whose weights come in variants: one is read without a word, of several the one that ``--variant`` names."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from inflate.bases import open_base
from inflate.cascade import Cascade
from inflate.cli.app import main
from inflate.data import decode_video
from inflate.errors import InputError
from inflate.train.from_model import recipe_of_model
from tests.bases.families import build

MADE = ["--frames", "2", "--steps", "2", "--device", "cpu", "--quiet", "--no-sheet"]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Plain weights throughout."""
    return build("stable-diffusion", tmp_path / "plain")


def as_variants(pipeline: Path, folder: Path, *names: str) -> Path:
    """The same with weights in variants only; those of the network that the second name has are twice as large."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(pipeline, folder)
    for path in list(folder.rglob("*.safetensors")):
        tensors = load_file(path)
        for number, name in enumerate(names):
            factor = 1 + number if path.parent.name == "unet" else 1
            values = {key: value * factor if value.is_floating_point() else value for key, value in tensors.items()}
            save_file(values, path.with_suffix(f".{name}.safetensors"), metadata={"format": "pt"})
        path.unlink()
    return folder


def frames(model: Path, out: Path, *more: str) -> np.ndarray:
    assert main(["generate", "red sun", "--model", str(model), "-o", str(out), "--force", *MADE, *more]) == 0
    return decode_video(out).frames


@pytest.mark.parametrize("more", [(), ("--variant", "fp16")])
def test_the_only_variant_is_read_named_or_not(pipeline: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    only = as_variants(pipeline, tmp_path / "only", "fp16")
    out = tmp_path / "out.webp"
    assert np.array_equal(frames(only, out, *more), frames(pipeline, out))
    assert Cascade.from_pretrained(only, "cpu", variant="fp16").stages[0].defaults


def test_of_several_variants_the_named_one_is_read(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both, out = as_variants(pipeline, tmp_path / "both", "fp16", "large"), tmp_path / "out.webp"
    plain = frames(pipeline, out)
    assert np.array_equal(frames(both, out, "--variant", "fp16"), plain)
    assert not np.array_equal(frames(both, out, "--variant", "large", "--save-settings"), plain)
    assert json.loads((tmp_path / "out.json").read_text())["variant"] == "large"
    capsys.readouterr()
    for more, said in (
        ((), "has weights in several variants (fp16, large) and none without; choose one with --variant"),
        (
            ("--variant", "fp61"),
            f"{both} has no weights of variant 'fp61' (did you mean 'fp16'?); the variants there: ",
        ),
    ):
        command = ["generate", "red sun", "--model", str(both), "-o", str(tmp_path / "other.webp"), *MADE, *more]
        assert main(command) == 2
        assert said in capsys.readouterr().err


COMMANDS = {
    "animate": ["animate", "still.png"],
    "interpolate": ["interpolate", "still.png", "still.png"],
    "extend": ["extend", "clip.gif"],
    "infill": ["infill", "clip.gif", "--missing", "1"],
    "vary": ["vary", "clip.gif"],
    "upscale": ["upscale", "clip.gif"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_a_pipeline_takes_a_variant(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    asked: list[str | None] = []

    def opened(*arguments: object, variant: str | None = None) -> Cascade:
        asked.append(variant)
        raise InputError("enough")

    monkeypatch.setattr(Cascade, "from_pretrained", opened)
    monkeypatch.setattr("inflate.data.video_facts", lambda path: pytest.fail("nothing is read before"))
    arguments = [*COMMANDS[command], "-o", str(tmp_path / "out.mp4"), "--model", str(pipeline), "--variant", "fp16"]
    assert main(arguments) == 2 and asked == ["fp16"]


def test_fine_tuning_reads_the_named_variant(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = as_variants(pipeline, tmp_path / "both", "fp16", "large")
    assert main(["recipe", str(both), "--variant", "large"]) == 0
    assert '\nvariant = "large"\n' in capsys.readouterr().out
    recipe = recipe_of_model(str(both), "CLIPS", overrides=['options.variant="large"'])
    assert recipe.options["variant"] == "large"
    assert main(["finetune", "--model", str(both), "--data", "CLIPS", "--variant", "fp16", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["variant"] == "fp16"
    bases = [open_base(both, variant=name) for name in ("fp16", "large")]
    assert [base.network.variant for base in bases] == ["fp16", "large"]
    # What is kept of one variant's encoders is never taken for another's.
    assert len({base.autoencoder().fingerprint() for base in bases}) == 2
    assert len({base.conditioner().fingerprint() for base in bases}) == 2
