"""Both train steps on tiny networks and a folder of moving squares: pairs, loss, export, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, UNet2DModel
from PIL import Image
from safetensors.torch import load_file

import inflate
from inflate.errors import InputError
from inflate.train.loop import train
from inflate.train.recipe import About, DataOptions, Recipe, TrainOptions
from inflate.train.step import TRAIN_STEPS, TrainStep, build_step
from superres.conditioning import enlarge, shrink
from superres.training import Pair, PairMaker, SuperResolutionOptions
from tests.superres.networks import seeded, solver, tiny_unet
from tests.train.conftest import SIZE, VAE, write_clip

IMAGE, VIDEO = "image-super-resolution", "video-super-resolution"
MODEL: dict[str, Any] = {
    "in_channels": 24,
    "out_channels": 12,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "mid_block_type": "none",
    "add_attention": False,
    "norm_num_groups": 4,
    "class_embed_type": "timestep",
}


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAIN_STEPS, IMAGE, "superres.training:build_image")
    monkeypatch.setitem(TRAIN_STEPS, VIDEO, "superres.training:build_video")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index, color in enumerate([(255, 0, 0), (0, 0, 255)]):
        write_clip(folder / f"clip{index}.gif", color)
    return folder


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image-model")
    tiny_unet(2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderDC(**VAE).save_pretrained(folder)
    return folder


def recipe(step: str, videos: Path, output: Path, **options: Any) -> Recipe:
    settings = TrainOptions(
        steps=3, batch_size=2, learning_rate=3e-3, warmup_steps=1, ema_decay=0.5, checkpoint_every=3, sample_every=0
    )
    options = {"residual_std": 0.1, "max_noise_level": 0.3} | options
    data = DataOptions(str(videos), SIZE, ("clip",))
    return Recipe("t", step, About(*"abcde"), data, settings, options, str(output))


def options_of(step: str, image_model: Path) -> dict[str, Any]:
    return {"model": MODEL, "crop": 16} if step == IMAGE else {"image_model": str(image_model), "num_frames": 3}


@pytest.mark.parametrize("step", [IMAGE, VIDEO])
def test_each_step_runs_from_recipe_to_export(step: str, videos: Path, image_model: Path, tmp_path: Path) -> None:
    export = train(recipe(step, videos, tmp_path / "run", **options_of(step, image_model)), device="cpu", quiet=True)
    weights = load_file(export / "unet/diffusion_pytorch_model.safetensors")
    assert weights and all(value.dtype == torch.float16 for value in weights.values())
    assert json.loads((export / "stage_config.json").read_text()) == {"scale": 4, "residual_std": 0.1}
    assert (export / "scheduler/scheduler_config.json").is_file()
    sheet = np.asarray(Image.open(tmp_path / "run/sheets/final.png"))
    assert sheet.shape[0] == (3 if step == IMAGE else 6) * SIZE and sheet.std() > 0
    if step == VIDEO:
        loaded = inflate.load(export / "unet")
        assert loaded.scheme.name == "imagen-video-sr"
        before = load_file(image_model / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(weights[name], value.half()) for name, value in before.items())
        fresh = inflate.inflate(tiny_unet(2), "imagen-video-sr", 3).temporal_state_dict()
        assert any(not torch.equal(fresh[name], value) for name, value in loaded.temporal_state_dict().items())
    else:
        assert isinstance(UNet2DModel.from_pretrained(export / "unet"), UNet2DModel)


@pytest.mark.parametrize("step", [IMAGE, VIDEO])
def test_batches_are_functions_of_the_update_alone(step: str, videos: Path, image_model: Path, tmp_path: Path) -> None:
    task = recipe(step, videos, tmp_path / "run", **options_of(step, image_model))
    another = replace(task, train=replace(task.train, seed=task.train.seed + 1))
    first, second, third = (build_step(one, torch.device("cpu")) for one in (task, task, another))
    assert isinstance(first, TrainStep)
    first.draw(0, 0, 4)
    once, again, other = first.draw(7, 0, 4), second.draw(7, 0, 4), second.draw(8, 0, 4)
    assert once["pixels"].shape == (4, 3, 1 if step == IMAGE else 3, SIZE, SIZE)
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert any(not torch.equal(once[key], other[key]) for key in once)
    elsewhere = third.draw(7, 0, 4)
    assert any(not torch.equal(once[key], elsewhere[key]) for key in once), "another seed draws another batch"
    cut = recipe(step, videos, tmp_path / "cut", **{**options_of(step, image_model), "crop": 16})
    cuts = build_step(cut, torch.device("cpu"))
    assert not torch.equal(cuts.draw(7, 0, 4)["corners"], cuts.draw(7, 4, 4)["corners"]), "nor another place the same"


@pytest.mark.parametrize("flip", [True, False])
def test_half_of_the_pictures_are_mirrored_if_any_is(flip: bool, videos: Path, tmp_path: Path) -> None:
    step: Any = build_step(recipe(IMAGE, videos, tmp_path / "run", model=MODEL, flip=flip), torch.device("cpu"))
    truth = videos_of(200)
    pixels = step.cut_batch(truth, 0, 0)["pixels"]
    same = (pixels == truth).flatten(1).all(1)
    assert torch.equal(pixels[~same], truth[~same].flip(-1))
    assert 70 < int(same.sum()) < 130 if flip else same.all()


def test_the_network_is_told_the_noisy_picture_and_learns_what_the_clean_one_lacks(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step: Any = build_step(recipe(IMAGE, videos, tmp_path / "run", model=MODEL, residual_std=0.25), torch.device("cpu"))
    truth, base, told = videos_of(6).split(2)
    step.pairs = lambda *_: Pair(truth, base, told, torch.tensor([3, 700]))
    seen: list[torch.Tensor] = []

    def predict(network: Any, sample: Any, condition: Any, timestep: Any, level: Any, fps: Any) -> torch.Tensor:
        seen.extend((condition, level))
        return sample

    monkeypatch.setattr("superres.training.predict", predict)
    problem = step.problem({"pixels": truth, "corners": torch.zeros(2, 2)})
    torch.testing.assert_close(problem.clean, (truth - base) * 4)
    problem.call(None, truth, torch.tensor([1, 2]), {})
    assert torch.equal(seen[0], told) and seen[1].tolist() == [3, 700]


@pytest.mark.parametrize("residual_std", [0.0, 0.1])
def test_overfitting_one_batch_lowers_the_loss(residual_std: float, videos: Path, tmp_path: Path) -> None:
    task = recipe(IMAGE, videos, tmp_path / "run", model=MODEL, residual_std=residual_std)
    step = build_step(task, torch.device("cpu"))
    batch = step.draw(0, 0, 2)
    optimizer = torch.optim.AdamW(step.trained.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        torch.manual_seed(0)
        loss = step(batch).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_all_or_only_temporal_parameters_train(videos: Path, image_model: Path, tmp_path: Path) -> None:
    for trainable, expected in (("temporal", False), ("all", True)):
        task = recipe(VIDEO, videos, tmp_path, image_model=str(image_model), num_frames=3, trainable=trainable)
        model: Any = build_step(task, torch.device("cpu")).trained
        assert all(parameter.requires_grad is expected for parameter in model.image_model.parameters())
        assert all(parameter.requires_grad for parameter in model.temporal_parameters())


def pair_maker(**options: Any) -> PairMaker:
    return PairMaker(SuperResolutionOptions(**options), tiny_unet(2), SIZE, torch.device("cpu"))


def videos_of(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 2, SIZE, SIZE, generator=seeded(1)) * 2 - 1


@pytest.mark.reference
def test_pairs_are_cuts_of_the_whole_picture_and_its_enlarged_low_resolution() -> None:
    maker, truth, alphas = pair_maker(crop=16), videos_of(2), solver().alphas_cumprod
    corners = torch.tensor([[0, 5], [16, 1]])
    pair = maker(truth, corners, alphas)
    for index, (top, left) in enumerate(corners.tolist()):
        picture = truth[index, :, 1]
        base = enlarge(shrink(picture[None], 4), 4)[0]
        cut = (slice(None), slice(top, top + 16), slice(left, left + 16))
        assert torch.equal(pair.truth[index, :, 1], picture[cut])
        torch.testing.assert_close(pair.base[index, :, 1], base[cut])
    assert pair.told is pair.base or torch.equal(pair.told, pair.base)
    assert not pair.level.any()


def test_levels_are_spread_over_their_range_and_base_stays_clean() -> None:
    maker, truth, alphas = pair_maker(max_noise_level=0.5), videos_of(64), solver().alphas_cumprod
    torch.manual_seed(0)
    pair = maker(truth, torch.zeros(64, 2, dtype=torch.long), alphas)
    assert 0 <= pair.level.min() < 60 and 440 < pair.level.max() <= 500
    error = (pair.told - pair.base).square().mean(dim=(1, 2, 3, 4))
    assert torch.corrcoef(torch.stack([error, pair.level.float()]))[0, 1] > 0.9
    assert torch.equal(pair.base, maker(truth, torch.zeros(64, 2, dtype=torch.long), alphas).base)


def test_a_drawn_level_is_the_nearest_of_its_range_both_ends_included(monkeypatch: pytest.MonkeyPatch) -> None:
    maker, truth, alphas = pair_maker(max_noise_level=0.5), videos_of(3), solver().alphas_cumprod
    monkeypatch.setattr("superres.training.torch.rand", lambda *_, **__: torch.tensor([0.9999, 0.5012, 0.0]))
    pair = maker(truth, torch.zeros(3, 2, dtype=torch.long), alphas)
    assert pair.level.tolist() == [500, 251, 0]


def test_a_share_of_the_clips_passes_through_the_autoencoder(vae: Path) -> None:
    maker, truth = pair_maker(vae=str(vae), vae_share=0.5, scale=2), videos_of(16)
    torch.manual_seed(0)
    plain, some, every = (maker.low(truth, share) for share in (0.0, 0.5, 1.0))
    same = (some == plain).flatten(1).all(1)
    assert 0 < same.sum() < 16 and torch.equal(some[~same], every[~same])
    assert not (every == plain).flatten(1).all(1).any()
    noisy = pair_maker(vae=str(vae), vae_share=1.0, vae_noise=1.0, scale=2).low(truth, 1.0)
    assert not torch.allclose(noisy, every, atol=1e-3)


@pytest.mark.parametrize(
    ("step", "options", "sentence"),
    [
        (IMAGE, {"model": {"no_such_argument": 1}}, "does not fit UNet2DModel"),
        (IMAGE, {"model": MODEL | {"in_channels": 12}}, "this one has 12 and 12"),
        (IMAGE, {"model": MODEL, "crop": 18}, "must be a multiple of 4 px"),
        (IMAGE, {"model": MODEL, "crop": 64}, "no larger than the picture"),
        (IMAGE, {"model": MODEL, "scale": 5}, "must be a multiple of 5 px"),
        (IMAGE, {"model": MODEL, "shrink": "cubic"}, "use 'area' or 'bicubic'"),
        (IMAGE, {"model": MODEL, "vae_share": 0.5}, "needs options.vae"),
        (
            IMAGE,
            {"model": MODEL, "max_noise_level": 2.0},
            "max_noise_level is 2.0; it must be a number",
        ),
        (IMAGE, {"model": {**MODEL, "class_embed_type": None}}, "no input for the level"),
        (IMAGE, {"model": MODEL, "residul_std": 0.1}, "did you mean 'residual_std'"),
        (VIDEO, {}, "options.image_model is missing"),
        (VIDEO, {"image_model": "x", "trainable": "spatial"}, "use 'temporal' or 'all'"),
    ],
)
def test_bad_options_are_one_sentence(step: str, options: dict, sentence: str, videos: Path, tmp_path: Path) -> None:
    options = {"max_noise_level": 0.1} | options
    with pytest.raises(InputError, match=sentence):
        build_step(recipe(step, videos, tmp_path, **options), torch.device("cpu"))
