"""The folders that recipes and role files name: what is meant, and what is refused before any work."""

from pathlib import Path
from typing import Any

import pytest

from inflate.bases import open_base
from inflate.bases.clip import TextImageEncoder
from inflate.checkpoint import resolve_path
from inflate.cli.app import main
from inflate.errors import InputError
from inflate.train.checking import check_recipe, place_folders
from inflate.train.recipe import About, DataOptions, Recipe, TrainOptions

ABOUT = About("x", "x", "x", "x", "x")
TRAIN = TrainOptions(steps=1, batch_size=1, learning_rate=1e-3, warmup_steps=0)
FAMILY = resolve_path("bundled:emoji")


def recipe(tmp_path: Path, kind: str, size: int = 64, **options: Any) -> Recipe:
    (tmp_path / "data").mkdir(exist_ok=True)
    data = DataOptions(str(tmp_path / "data"), size=size)
    return Recipe("test", kind, ABOUT, data, TRAIN, options, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("step", "option", "part"),
    [
        ("decoder", "clip", "clip"),
        ("decoder", "vae", "vae"),
        ("decoder", "scheduler", "scheduler"),
        ("decoder", "init", "unet"),
        ("prior", "init", "prior"),
        ("frame-decoder", "init", "frame_decoder"),
        ("video-decoder", "image_model", "unet"),
        ("video-super-resolution", "image_model", ""),  # a family has two such networks
    ],
)
def test_a_bundled_family_is_a_folder_like_any_other(tmp_path: Path, step: str, option: str, part: str) -> None:
    placed = place_folders(recipe(tmp_path, step, 64, **{option: "bundled:emoji"})).options[option]
    assert Path(placed) == FAMILY / part if step != "video-super-resolution" else FAMILY / "unet"
    one = place_folders(recipe(tmp_path, step, 64, **{option: "bundled:emoji/sr_unet"})).options[option]
    assert Path(one) == FAMILY / "sr_unet"


def test_a_distillations_own_options_are_placed_too(tmp_path: Path) -> None:
    inner = {"clip": "bundled:emoji", "vae": "bundled:emoji", "init": "bundled:emoji"}
    placed = place_folders(recipe(tmp_path, "distillation", of="decoder", step=inner)).options["step"]
    assert [Path(placed[name]).name for name in inner] == ["clip", "vae", "unet"]
    assert TextImageEncoder.load(placed["clip"]).config.context_length > 0


def test_parts_of_a_model_may_be_a_whole_pipelines(tmp_path: Path) -> None:
    base = open_base("bundled:emoji", {"vae": "bundled:emoji"})
    assert base.parts["vae"] == FAMILY / "vae"


@pytest.mark.parametrize(("size", "said"), [(60, "multiples of 8 pixels; use 56 or 64"), (9, "use 8 or 16"), (64, "")])
def test_a_size_that_the_family_cannot_do_is_refused_at_once(tmp_path: Path, size: int, said: str) -> None:
    made = recipe(tmp_path, "decoder", size, clip="bundled:emoji", vae="bundled:emoji", init="bundled:emoji")
    if not said:
        check_recipe(made)
        return
    with pytest.raises(InputError, match=rf"data.size is {size}, but the autoencoder in .*{said}"):
        check_recipe(made)


@pytest.mark.parametrize("command", ["generate x -o x.mp4 --model", "assemble"])
def test_a_recipe_is_no_role_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text("[train]\nsteps = 1\n")
    assert main([*command.split(), str(recipe_file), *(["made"] if command == "assemble" else [])]) == 2
    printed = capsys.readouterr().err.strip()
    assert "run 'inflate finetune" in printed and "\n" not in printed
