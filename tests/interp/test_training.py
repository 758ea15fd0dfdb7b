"""The train step of ↑F on tiny networks and moving squares: loss, export, masks, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

import inflate
from inflate.checkpoint import load
from inflate.errors import InputError
from inflate.train.loop import train
from inflate.train.recipe import About, DataOptions, Recipe, TrainOptions, load_recipe, parse_table
from inflate.train.step import TrainStep, build_step
from interp.conditioning import EXTRA_KEYS
from interp.folder import load_interpolation, save_partial
from interp.training.interpolation import InterpolationOptions
from tests.train.conftest import CLIP, SIZE, UNET, VAE, write_clip

UP = "interpolation"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index, color in enumerate([(255, 0, 0), (0, 0, 255)]):
        write_clip(folder / f"clip{index}.gif", color)
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip/, vae/, unet/ (D), video/ (D^t, its temporal layers no longer the identity) and interpolation_unet/."""
    from diffusers import AutoencoderDC

    from inflate.models.clip import ClipConfig, TextImageEncoder
    from interp.conditioning import start_from_decoder

    folder = tmp_path_factory.mktemp("family")
    torch.manual_seed(0)
    TextImageEncoder.create(ClipConfig(**CLIP)).save(folder / "clip")
    AutoencoderDC(**VAE).save_pretrained(folder / "vae")
    unet: Any = UNet2DConditionModel(**UNET)
    unet.save_pretrained(folder / "unet")
    video = inflate.inflate(unet, num_frames=4)
    with torch.no_grad():
        for parameter in video.temporal_parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    inflate.save(video, folder / "video")
    weights = video.temporal_state_dict()
    model = start_from_decoder(inflate.deflate(video), video.scheme, 4, weights)
    save_partial(model, folder / "interpolation_unet", folder / "unet")
    return folder


def recipe(videos: Path, output: Path, options: dict[str, Any]) -> Recipe:
    settings = TrainOptions(
        steps=3, batch_size=2, learning_rate=3e-3, warmup_steps=1, ema_decay=0.5, checkpoint_every=3, sample_every=0
    )
    return Recipe("t", UP, About(*"abcde"), DataOptions(str(videos), SIZE, ("clip",)), settings, options, str(output))


def options_of(family: Path, **changes: Any) -> dict[str, Any]:
    folders = {"clip": "clip", "vae": "vae", "image_model": "unet", "init": "video"}
    return {option: str(family / folder) for option, folder in folders.items()} | changes


def test_interpolation_runs_from_recipe_to_a_partial_export(videos: Path, family: Path, tmp_path: Path) -> None:
    export = train(recipe(videos, tmp_path / "run", options_of(family)), device="cpu", quiet=True)
    folder = export / "interpolation_unet"
    assert {path.name for path in folder.iterdir()} == {"config.json", "temporal.safetensors"}
    made, before = load_file(folder / "temporal.safetensors"), load_file(family / "video/temporal.safetensors")
    assert set(made) - set(before) == set(EXTRA_KEYS)
    assert made[EXTRA_KEYS[0]].any() and all(value.dtype == torch.float16 for value in made.values())
    assert any(not torch.equal(made[name], value.half()) for name, value in before.items())
    loaded = load_interpolation(folder, family / "unet")
    assert loaded.num_frames == 4 and loaded.scheme.extra_in_channels == 5
    sheet = np.asarray(Image.open(tmp_path / "run/sheets/final.png"))
    assert sheet.shape[:2] == (6 * SIZE, 4 * SIZE) and sheet.std() > 0


def test_trained_image_weights_go_into_the_export(videos: Path, family: Path, tmp_path: Path) -> None:
    options = options_of(family, trainable="all")
    export = train(recipe(videos, tmp_path / "run", options), device="cpu", quiet=True)
    loaded = load(export / "interpolation_unet")
    before = load_file(family / "unet/diffusion_pytorch_model.safetensors")
    state = loaded.image_model.state_dict()
    assert any(not torch.equal(state[name], value.half().float()) for name, value in before.items())


def test_untrained_image_weights_go_into_the_export_on_request(videos: Path, family: Path, tmp_path: Path) -> None:
    options = options_of(family, with_image_weights=True)
    export = train(recipe(videos, tmp_path / "run", options), device="cpu", quiet=True)
    state = load_interpolation(export / "interpolation_unet").image_model.state_dict()
    before = load_file(family / "unet/diffusion_pytorch_model.safetensors")
    assert before and all(torch.equal(state[name], value.half().float()) for name, value in before.items())


def test_batches_are_functions_of_the_update_alone(videos: Path, family: Path, tmp_path: Path) -> None:
    task = recipe(videos, tmp_path / "run", options_of(family))
    another = replace(task, train=replace(task.train, seed=task.train.seed + 1))
    first, second, third = (build_step(one, torch.device("cpu")) for one in (task, task, another))
    assert isinstance(first, TrainStep)
    first.draw(0, 0, 4)
    once, again, other = first.draw(7, 0, 4), second.draw(7, 0, 4), second.draw(8, 0, 4)
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert any(not torch.equal(once[key], other[key]) for key in once)
    elsewhere = third.draw(7, 0, 4)
    assert any(not torch.equal(once[key], elsewhere[key]) for key in once), "another seed draws another batch"
    parts = [second.draw(7, 0, 2), second.draw(7, 2, 2)]
    assert all(torch.equal(once[key], torch.cat([part[key] for part in parts])) for key in once)


def test_clips_have_masks_of_their_own_and_are_told_their_middle_frame_and_rate(
    videos: Path, family: Path, tmp_path: Path
) -> None:
    step: Any = build_step(recipe(videos, tmp_path / "run", options_of(family)), torch.device("cpu"))
    batch, drawn = step.draw(3, 0, 8), [step.clips.sampler.sample(3, index) for index in range(8)]
    assert len({tuple(mask.tolist()) for mask in batch["known"]}) > 1
    embeds = step.clips.encodings.embeds[drawn[0].frame_indices]
    middle = len(embeds) // 2
    assert not (embeds[0] == embeds[middle]).all()
    assert torch.equal(batch["embeds"][0], torch.from_numpy(embeds[middle]).float())
    assert batch["fps"].tolist() == pytest.approx([draw.fps for draw in drawn])


def test_the_loss_is_that_of_unknown_frames_alone(videos: Path, family: Path, tmp_path: Path) -> None:
    step: Any = build_step(recipe(videos, tmp_path, options_of(family)), torch.device("cpu"))
    batch = step.draw(0, 0, 2)
    wrong = batch["known"].float() * 100

    class Off(torch.nn.Module):
        """The true v, but for known frames, where it is far off, and for the others by one."""

        def __init__(self, scheme: Any) -> None:
            super().__init__()
            self.scheme = scheme

        def forward(self, inputs: Any, timestep: Any, **conditioning: Any) -> Any:
            alphas = step.process.scheduler.alphas_cumprod[timestep][:, None, None, None, None].double()
            noisy = inputs[:, :4].double()
            true = ((alphas.sqrt() * noisy - batch["latents"]) / (1 - alphas).sqrt()).float()
            return type("Output", (), {"sample": true + 1 + wrong[:, None, :, None, None]})

    step.trained = Off(step.trained.scheme)
    torch.manual_seed(0)
    assert float(step(batch).total) == pytest.approx(1.0, abs=1e-2)


def test_overfitting_one_batch_lowers_the_loss(videos: Path, family: Path, tmp_path: Path) -> None:
    task = recipe(videos, tmp_path, options_of(family, trainable="all"))
    built: Any = build_step(task, torch.device("cpu"))
    batch = built.draw(0, 0, 2)
    parameters = [value for value in built.trained.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for _ in range(25):
        torch.manual_seed(0)
        loss = built(batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_the_curriculum_stops_where_it_is_told(videos: Path, family: Path, tmp_path: Path) -> None:
    def rates(end: float) -> torch.Tensor:
        task = recipe(videos, tmp_path, options_of(family, curriculum_end=end))
        return build_step(task, torch.device("cpu")).draw(3, 0, 60)["fps"]

    assert rates(1.0).mean() < rates(0.5).mean() < rates(0.1).mean()


def test_only_temporal_weights_train_unless_all_do(videos: Path, family: Path, tmp_path: Path) -> None:
    for trainable, expected in (("temporal", False), ("all", True)):
        task = recipe(videos, tmp_path, options_of(family, trainable=trainable))
        model: Any = build_step(task, torch.device("cpu")).trained
        assert all(parameter.requires_grad is expected for parameter in model.image_model.parameters())
        assert all(parameter.requires_grad for parameter in model.temporal_parameters())


def test_training_goes_on_from_an_interpolation_model(videos: Path, family: Path, tmp_path: Path) -> None:
    task = recipe(videos, tmp_path, options_of(family, init=str(family / "interpolation_unet")))
    model: Any = build_step(task, torch.device("cpu")).trained
    before = load_file(family / "interpolation_unet/temporal.safetensors")
    assert all(torch.equal(model.temporal_state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trainable": "spatial"}, "use 'temporal' or 'all'"),
        ({"masks": {"skips": 1}}, "did you mean 'skip'"),
        ({"curriculum_end": 0}, "above 0 and at most 1"),
        ({"weigthing": "v"}, "did you mean 'weighting'"),
    ],
)
def test_bad_options_are_one_sentence(
    changes: dict[str, Any], sentence: str, videos: Path, family: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        build_step(recipe(videos, tmp_path, options_of(family, **changes)), torch.device("cpu"))


def test_a_folder_that_is_no_decoder_is_refused(videos: Path, family: Path, tmp_path: Path) -> None:
    for init, sentence in ((family / "unet", "no such file"), (tmp_path / "none", "no such folder")):
        with pytest.raises(InputError, match=sentence):
            build_step(recipe(videos, tmp_path, options_of(family, init=str(init))), torch.device("cpu"))


def test_the_familys_recipe_parses() -> None:
    found = load_recipe(ROOT / "recipes/emoji/interpolation.toml")
    assert found.step == UP and parse_table(InterpolationOptions, found.options, "options")
