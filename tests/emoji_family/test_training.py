"""The three recipes of emoji-sd at tiny size, one after the other: a pipeline that diffusers opens and that draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file

from emoji_family.measure import draw, psnr, round_trip
from emoji_family.pipeline import read_pipeline
from emoji_family.text import read_text_encoder, tokens_of
from emoji_family.training.text_encoder import Captions
from inflate.errors import InputError
from inflate.train.loop import train
from inflate.train.recipe import About, DataOptions, Recipe, TrainOptions, load_recipe
from inflate.train.step import build_step

from .conftest import SIZE

ROOT = Path(__file__).parents[2]
ABOUT = About("a test", "none", "CPU", "seconds", "none")
KL = {
    "latent_channels": 4,
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": SIZE,
}


def recipe(step: str, data: Path, output: Path, options: dict, **changes) -> Recipe:
    settings = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "ema_decay": 0.5}
    settings |= {"log_every": 1, "checkpoint_every": 3, "sample_every": 0}
    return Recipe(
        "t", step, ABOUT, DataOptions(str(data), SIZE), TrainOptions(**(settings | changes)), options, str(output)
    )


def run(step: str, data: Path, output: Path, options: dict, **changes) -> Path:
    return train(recipe(step, data, output, options, **changes), device="cpu", quiet=True)


@pytest.fixture(scope="module")
def pipeline(clips: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exports of all three steps; returns the folder of runs."""
    runs = tmp_path_factory.mktemp("runs")
    vae = run("autoencoder-kl", clips, runs / "vae", {"teacher": str(parts / "vae"), "model": KL})
    text = run("text-encoder", clips, runs / "text", {"clip": str(parts / "clip"), "extra_layers": 1})
    told = {"unet": str(parts / "unet"), "text": str(text), "vae": str(parts / "vae"), "ship_vae": str(vae)}
    run("text-to-image", clips, runs / "sd", told)
    run("text-to-image", clips, runs / "both", told | {"train_text_encoder": True})
    return runs


def test_the_pipeline_draws(pipeline: Path) -> None:
    made = read_pipeline(pipeline / "sd/export")
    pictures = draw(made, ["red", "green leaf"], [0, 1], steps=2, guidance_scale=2.0)
    assert pictures.shape == (2, 3, SIZE, SIZE)
    assert pictures.isfinite().all() and pictures.std() > 0
    again = draw(made, ["green leaf"], [1], steps=2, guidance_scale=2.0)
    assert (again - pictures[1:]).abs().max() < 1e-4
    assert isinstance(made.vae, AutoencoderKL) and made.vae.config["scaling_factor"] == 0.5
    assert made.scheduler.config["prediction_type"] == "v_prediction"


def test_encoder_states_one_small_variance(pipeline: Path) -> None:
    vae: Any = AutoencoderKL.from_pretrained(pipeline / "vae/export", torch_dtype=torch.float32)
    with torch.no_grad():
        moments = vae.encode(torch.rand(2, 3, SIZE, SIZE) * 2 - 1).latent_dist
    assert moments.logvar.unique().tolist() == [-8.0]
    assert round_trip(vae, torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 3, SIZE, SIZE)


def test_the_text_encoder_learns_only_where_asked(pipeline: Path) -> None:
    name = "model.safetensors"
    before = load_file(pipeline / "text/export/text_encoder" / name)
    frozen = load_file(pipeline / "sd/export/text_encoder" / name)
    moved = load_file(pipeline / "both/export/text_encoder" / name)
    assert all(torch.equal(before[key].half(), frozen[key]) for key in before)
    assert any(not torch.equal(before[key].half(), moved[key]) for key in before)


def test_captions_teach_the_embedding(clips: Path, parts: Path, tmp_path: Path) -> None:
    options = {"clip": str(parts / "clip"), "dropout": 0.0, "extra_layers": 1}
    made = recipe("text-encoder", clips, tmp_path, options, steps=40, learning_rate=3e-3)
    step = build_step(made, torch.device("cpu"))
    start = float(step(step.draw(0, 0, 4)).total.detach())
    train(made, device="cpu", quiet=True)
    step.trained.load_state_dict(read_text_encoder(tmp_path / "export/text_encoder").state_dict())
    assert float(step(step.draw(0, 0, 4)).total.detach()) < 0.5 * start
    step.sheet(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.json").is_file()


def test_states_learn_how_things_look(pipeline: Path, clips: Path, parts: Path, tmp_path: Path) -> None:
    first = {"clip": str(parts / "clip"), "init": str(pipeline / "text/export"), "vae": str(parts / "vae"), "length": 8}
    made = recipe("text-encoder", clips, tmp_path, first | {"dropout": 0.0}, steps=60, learning_rate=3e-3)
    step = build_step(made, torch.device("cpu"))
    assert step.draw(1, 0, 4)["tokens"].shape == (4, 8) and step.draw(0, 0, 4)["tokens"].shape == (4, 32)
    start = float(step(step.draw(0, 0, 4)).total.detach())
    train(made, device="cpu", quiet=True)
    step.trained.load_state_dict(read_text_encoder(tmp_path / "export/text_encoder").state_dict())
    assert float(step(step.draw(0, 0, 4)).total.detach()) < 0.5 * start


def test_looks_stand_in_for_states(pipeline: Path, clips: Path, parts: Path, tmp_path: Path) -> None:
    told = {"unet": str(parts / "unet"), "text": str(pipeline / "text/export"), "vae": str(parts / "vae")}
    made = recipe("text-to-image", clips, tmp_path, told | {"told": "looks", "dropout": 0.0, "keywords": 0.0})
    step: Any = build_step(made, torch.device("cpu"))
    batch = step.draw(0, 0, 4)
    states = step._looks(batch)
    assert torch.equal(states[:, -1], batch["looks"])
    assert not states[:, 0].any(), "the start token knows nothing"
    assert not step._looks(step._with_looks(tokens_of(step.tokenizer, [""] * 4), np.zeros(4, int))).any()
    train(made, device="cpu", quiet=True)
    assert (tmp_path / "sheets/final.png").is_file()


def test_a_unet_without_class_embedding_goes_on(pipeline: Path, clips: Path, parts: Path, tmp_path: Path) -> None:
    first = pipeline / "sd/export/unet"
    told = {"unet": str(first), "text": str(pipeline / "text/export"), "vae": str(pipeline / "vae/export")}
    step: Any = build_step(recipe("text-to-image", clips, tmp_path, told), torch.device("cpu"))
    weights = UNet2DConditionModel.from_pretrained(first, torch_dtype=torch.float32).state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in step.trained["unet"].state_dict().items())


def test_dropped_captions_are_empty(pipeline: Path, clips: Path, parts: Path, tmp_path: Path) -> None:
    told = {
        "unet": str(parts / "unet"),
        "text": str(pipeline / "text/export"),
        "vae": str(parts / "vae"),
        "dropout": 1.0,
    }
    step: Any = build_step(recipe("text-to-image", clips, tmp_path, told), torch.device("cpu"))
    assert isinstance(step.captions, Captions)
    rows = step.draw(0, 0, 4)["tokens"]
    assert (rows == step.tokenizer("", padding="max_length", return_tensors="pt").input_ids).all()


@pytest.mark.parametrize(
    ("step", "options", "sentence"),
    [
        ("autoencoder-kl", {"model": {"no_such_argument": 1}}, "does not fit AutoencoderKL"),
        ("autoencoder-kl", {"model": KL | {"latent_channels": 3}}, "needs latent_channels = 4"),
        ("text-to-image", {"text": "nowhere"}, "is no text encoder's folder"),
        ("text-to-image", {"vae": "nowhere"}, "is no autoencoder's folder"),
        ("text-to-image", {"told": "nothing"}, "use 'states' or 'looks'"),
    ],
)
def test_bad_options_are_one_sentence(
    step: str, options: dict, sentence: str, clips: Path, parts: Path, pipeline: Path, tmp_path: Path
) -> None:
    usual = {"unet": str(parts / "unet"), "text": str(pipeline / "text/export"), "vae": str(parts / "vae")}
    usual = {"teacher": str(parts / "vae")} if step == "autoencoder-kl" else usual
    with pytest.raises(InputError, match=sentence):
        build_step(recipe(step, clips, tmp_path, usual | options), torch.device("cpu"))


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/emoji-sd/*.toml")), ids=lambda path: path.stem)
def test_recipes_parse(path: Path) -> None:
    found = load_recipe(path)
    assert found.about.figure and found.data.split == "train"
    assert str(path.relative_to(ROOT)) in found.about.command


def test_psnr_of_a_known_error() -> None:
    true = torch.zeros(1, 3, 4, 4)
    assert psnr(true + 0.2, true) == pytest.approx(20.0, abs=1e-4)  # 0.1 of the range
