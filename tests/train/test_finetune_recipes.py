"""The recipes for what people bring: on true configs, and for real at tiny width; the commands of the guide."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from inflate.adapters import IMAGE_MODEL_CLASSES
from inflate.cli.app import app, main
from inflate.inflater import find_sites, meta_image_model, report, resolve_scheme
from inflate.train.recipe import load_recipe, parse_table
from inflate.train.video_options import VideoOptions
from tests.bases.families import build, parts_of

from .test_finetune_models import settings, write_clip

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes" / "finetune").glob("*.toml"))
FAMILY = {
    "sd15": ("stable-diffusion", "sd15_unet"),
    "sdxl": ("stable-diffusion-xl", "sdxl_unet"),
    "karlo": ("karlo", "karlo_decoder"),
    "pixart": ("pixart", "pixart_alpha_xl_2_512"),
    "flux-lora": ("flux", "flux1_dev_transformer"),
    "one-video": ("stable-diffusion", "sd15_unet"),
    "few-clips": ("stable-diffusion", "sd15_unet"),
    "domain": ("stable-diffusion", "sd15_unet"),
}
CONFIGS = (ROOT / "tests/inflater/configs", ROOT / "tests/cascade/configs", ROOT / "tests/bases/configs")


def published(name: str) -> dict[str, Any]:
    places = [folder / f"{name}.json" for folder in (*CONFIGS, ROOT / "inflate/checkpoint/configs")]
    return json.loads(next(path for path in places if path.is_file()).read_text())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        write_clip(folder / f"clip{number}.mp4", number, size=(64, 64))
        (folder / f"clip{number}.txt").write_text("red")
    return folder


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_fits_the_true_network(path: Path) -> None:
    recipe = load_recipe(path)
    options = parse_table(VideoOptions, recipe.options, "options")
    config = published(FAMILY[path.stem][1])
    network = meta_image_model(IMAGE_MODEL_CLASSES[config["_class_name"]], config)
    scheme = resolve_scheme(options.scheme)
    assert find_sites(network, scheme)
    assert recipe.clips is not None
    assert report(network, scheme, recipe.clips.num_frames).new_parameters > 100_000
    assert recipe.about.command.split()[2] == path.relative_to(ROOT).as_posix()
    assert path.name in (ROOT / "recipes/finetune/README.md").read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_at_tiny_width(path: Path, clips: Path, tmp_path: Path) -> None:
    family = FAMILY[path.stem][0]
    model = build(family, tmp_path / "model")
    more = [f'options.parts.{role}="{folder}"' for role, folder in parts_of(family, model).items()]
    table = tomllib.loads(path.read_text())
    size = {"karlo": 8}.get(family, 16)
    more += [f"data.size=[{size}]", "train.warmup_steps=0", "train.decay_steps=0", "train.mixed_precision=no"]
    more += ["train.gradient_accumulation_steps=1", "train.sample_every=0", "options.sample_steps=2"]
    more += ["options.image_dtype=auto", "data.fps=[8.0]"]
    if table["options"].get("init"):
        assert main(_command(clips, model, tmp_path / "module", *more, scheme="animatediff-v2")) == 0
        more.append(f'options.init="{tmp_path / "module" / "export" / "unet"}"')
    if table["data"].get("pictures"):
        more += [f'data.pictures="{_pictures(tmp_path)}"']
    run = tmp_path / "run"
    assert main(["finetune", str(path), *_command(clips, model, run, *more)[1:]]) == 0
    assert list((run / "export").rglob("temporal.safetensors"))
    assert list((run / "samples").rglob("*.mp4"))


def _command(clips: Path, model: Path, run: Path, *more: str, scheme: str = "") -> list[str]:
    named = ["--model", str(model), "--data", str(clips), "-o", str(run), "--device", "cpu", "--quiet"]
    return ["finetune", *named, *(["--scheme", scheme] if scheme else []), *settings(*more, steps=1)]


def _pictures(folder: Path) -> Path:
    from PIL import Image

    place = folder / "pictures"
    place.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (100 * number, 40, 200)).save(place / f"{number}.png")
    return place


def guide_commands() -> list[str]:
    text = (ROOT / "docs" / "finetuning.md").read_text()
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.startswith("inflate ")]


def test_the_guides_commands_run_in_order(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Every command of docs/finetuning.md, with a tiny model in place of MODEL and few updates."""
    monkeypatch.chdir(tmp_path)
    model = build("stable-diffusion", tmp_path / "MODEL")
    clips_here, more_here = tmp_path / "CLIPS", tmp_path / "MORE"
    clips_here.symlink_to(clips)
    more_here.symlink_to(clips)
    few = [*settings("train.sample_every=0", "options.sample_steps=1", steps=1), "--device", "cpu", "--quiet"]
    ran = []
    for command in guide_commands():
        command, _, target = command.partition(" > ")
        words: list[str] = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)][1:]
        if words[0] == "finetune":
            words += few
        if words[0] == "finetune" and "--data" in words and "MODEL" in words:
            words += ["--scheme", "animatediff-v2"]  # so that the export to other tools below has something to export
        if words[0] == "recipe":
            words += few[:-3]
        if words[0] == "generate":
            words += ["--frames", "4", "--steps", "1", "--device", "cpu", "--quiet"]
        capsys.readouterr()
        assert main(words) == 0, command
        if target:
            Path(target).write_text(capsys.readouterr().out)
        ran.append(words[0])
    assert model.is_dir() and {"finetune", "recipe", "generate", "export"} <= set(ran)


def test_every_command_in_the_guide_exists() -> None:
    text = (ROOT / "docs" / "finetuning.md").read_text()
    program = typer.main.get_command(app)
    commands = program.commands  # pyright: ignore[reportAttributeAccessIssue]
    for line in re.findall(r"`inflate ([a-z][^`]*)`", text) + [
        line.removeprefix("inflate ") for line in guide_commands()
    ]:
        words = line.split()
        assert words[0] in commands, line
        options = {option for parameter in commands[words[0]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line
    assert not [name for name in re.findall(r"`(recipes/[\w./-]+)`", text) if not (ROOT / name).exists()]
