"""The train step of the frame decoder on tiny networks and moving squares."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, UNet2DModel
from PIL import Image

from inflate.errors import InputError
from inflate.train.loop import train
from inflate.train.recipe import About, DataOptions, Recipe, TrainOptions, load_recipe, parse_table
from inflate.train.step import TrainStep, build_step
from interp.detail import encode_pictures
from interp.frame_decoder import new_frame_decoder, refine
from interp.training.frame_decoder import FrameDecoderOptions
from tests.train.conftest import SIZE, VAE, write_clip

STEP = "frame-decoder"
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index, color in enumerate([(255, 0, 0), (0, 0, 255)]):
        write_clip(folder / f"clip{index}.gif", color)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderDC(**VAE).save_pretrained(folder)
    return folder


def recipe(videos: Path, vae: Path, output: Path, **changes: Any) -> Recipe:
    settings = TrainOptions(
        steps=3, batch_size=2, learning_rate=3e-3, warmup_steps=1, ema_decay=0.5, checkpoint_every=3, sample_every=0
    )
    model = {"block_out_channels": [8, 8], "norm_num_groups": 4}
    options = {"vae": str(vae), "num_frames": 4, "frames_per_clip": 2, "model": model} | changes
    return Recipe("t", STEP, About(*"abcde"), DataOptions(str(videos), SIZE, ("clip",)), settings, options, str(output))


def test_it_runs_from_recipe_to_export(videos: Path, vae: Path, tmp_path: Path) -> None:
    export = train(recipe(videos, vae, tmp_path / "run"), device="cpu", quiet=True)
    made: Any = UNet2DModel.from_pretrained(export / "frame_decoder")
    assert made.conv_out.weight.any()
    sheet = np.asarray(Image.open(tmp_path / "run/sheets/final.png"))
    assert sheet.shape[:2] == (4 * SIZE, 8 * SIZE) and sheet.std() > 0


def test_batches_are_functions_of_the_update_alone(videos: Path, vae: Path, tmp_path: Path) -> None:
    first, second = (build_step(recipe(videos, vae, tmp_path), CPU) for _ in range(2))
    assert isinstance(first, TrainStep)
    first.draw(0, 0, 4)
    once, again, other = first.draw(7, 0, 4), second.draw(7, 0, 4), second.draw(8, 0, 4)
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert any(not torch.equal(once[key], other[key]) for key in once)
    parts = [second.draw(7, 0, 2), second.draw(7, 2, 2)]
    assert all(torch.equal(once[key], torch.cat([part[key] for part in parts])) for key in once)


def test_clips_are_mirrored_and_played_backwards(videos: Path, vae: Path, tmp_path: Path) -> None:
    plain, turned = (build_step(recipe(videos, vae, tmp_path, flip=flip), CPU).draw(0, 0, 24) for flip in (False, True))
    ways = set()
    for clip, other in zip(plain["pixels"], turned["pixels"], strict=True):
        fits = [dims for dims in ((), (1,), (3,), (1, 3)) if torch.equal(clip.flip(dims) if dims else clip, other)]
        assert fits
        ways.add(fits[0])
    assert len(ways) == 4


def test_overfitting_one_batch_lowers_the_loss(videos: Path, vae: Path, tmp_path: Path) -> None:
    built: Any = build_step(recipe(videos, vae, tmp_path), CPU)
    batch = built.draw(0, 0, 2)
    optimizer = torch.optim.AdamW(built.trained.parameters(), lr=3e-3)
    parts = []
    for _ in range(60):
        torch.manual_seed(0)
        loss = built(batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        parts.append(loss.parts)
    assert parts[-1]["psnr"] > parts[0]["psnr"] + 1 and parts[-1]["psnr"] > parts[-1]["psnr_before"]


def test_trust_follows_the_distance_and_latents_are_the_noisier_the_less_trusted(
    videos: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def note(vae: Any, latents: Any, around: Any, trust: Any) -> Any:
        seen.update(latents=latents, trust=trust)
        return around.blend, around.blend

    monkeypatch.setattr("interp.training.frame_decoder.decode_trusted", note)
    step: Any = build_step(recipe(videos, vae, tmp_path, frames_per_clip=3, trust_spread=0.0), CPU)
    found = {}
    for fps in (30.0, 2.9, 2.1, 0.5):  # frames of 0.03, 0.34, 0.48 and 2 seconds
        batch = step.draw(0, 0, 8) | {"fps": torch.full((8,), fps), "known": torch.tensor([[True, False] * 2] * 8)}
        batch["new"] = torch.tensor([[1, 3]] * 8)
        torch.manual_seed(0)
        _, target, *_ = step._told(batch)
        error = seen["latents"] - encode_pictures(step.vae, target)
        found[fps] = (float(seen["trust"].mean()), float(error.std()))
    assert found[30.0][0] == 0 and found[0.5][0] == 1 and found[0.5][1] < 1e-6
    assert found[2.9][0] < found[2.1][0] and 0.5 > found[2.9][1] > found[2.1][1] > 0


@pytest.mark.parametrize("loss", ["psnr", "l2"])
def test_the_loss_is_of_the_made_frames(loss: str, videos: Path, vae: Path, tmp_path: Path) -> None:
    step: Any = build_step(recipe(videos, vae, tmp_path, loss=loss), CPU)
    batch = step.draw(0, 0, 2)
    torch.manual_seed(0)
    around, target, trust, residual, plain = step._told(batch)
    torch.manual_seed(0)
    found = step(batch)
    error = (refine(step.trained, around, trust, residual, plain) - target).square().mean(dim=(1, 2, 3))
    expected = error if loss == "l2" else 10 * torch.log10(error / 4 + 1e-5)
    torch.testing.assert_close(found.total, expected.mean())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": "l3"}, "use 'psnr' or 'l2'"),
        ({"latent_noise": -1}, "must be a number of 0 or more"),
        ({"frames_per_clip": 0}, "must be a whole number from 1"),
        ({"curriculum_end": 0}, "above 0 and at most 1"),
        ({"masks": {"skips": 1}}, "did you mean 'skip'"),
        ({"model": {"width": 3}}, "does not fit new_frame_decoder"),
    ],
)
def test_bad_options_are_one_sentence(
    changes: dict[str, Any], sentence: str, videos: Path, vae: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        build_step(recipe(videos, vae, tmp_path, **changes), CPU)


def test_training_goes_on_from_a_frame_decoder(videos: Path, vae: Path, tmp_path: Path) -> None:
    before = new_frame_decoder((8, 8), norm_num_groups=4)
    before.save_pretrained(tmp_path / "before")
    step: Any = build_step(recipe(videos, vae, tmp_path, init=str(tmp_path / "before")), CPU)
    assert all(torch.equal(value, step.trained.state_dict()[name]) for name, value in before.state_dict().items())


def test_the_familys_recipe_parses() -> None:
    found = load_recipe(ROOT / "recipes/emoji/frame-decoder.toml")
    assert found.step == STEP and parse_table(FrameDecoderOptions, found.options, "options")
