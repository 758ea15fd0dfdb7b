"""Every step of the bundled family on tiny models: it learns, exports what loads, and trains only what it should."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import inflate
from inflate.errors import InputError
from inflate.train.loop import train
from inflate.train.step import TrainStep, build_step

from .conftest import UNET, VAE
from .family_recipes import FAMILY_STEPS, PICTURE_STEPS, family_options, family_recipe


@pytest.mark.parametrize("step", FAMILY_STEPS)
def test_each_step_runs_from_recipe_to_export(step, videos, tiny_family, tmp_path):
    recipe = family_recipe(step, videos, tmp_path / "run", family_options(step, tiny_family))
    export = train(recipe, device="cpu", quiet=True)
    written = list(export.rglob("*.safetensors"))
    assert written and all(bool(load_file(path)) for path in written)
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert len(lines) == 4
    sheets = list((tmp_path / "run/sheets").iterdir())
    assert [path.stem for path in sheets] == ["final"]
    if sheets[0].suffix == ".png":
        assert np.asarray(Image.open(sheets[0])).std() > 0


@pytest.mark.parametrize("step", FAMILY_STEPS)
def test_batches_are_functions_of_the_update_alone(step, videos, tiny_family, tmp_path):
    recipe = family_recipe(step, videos, tmp_path / "run", family_options(step, tiny_family))
    another = replace(recipe, train=replace(recipe.train, seed=recipe.train.seed + 1))
    first, second, third = (build_step(one, torch.device("cpu")) for one in (recipe, recipe, another))
    assert isinstance(first, TrainStep)
    first.draw(0, 0, 4)
    once, again, other = first.draw(7, 0, 4), second.draw(7, 0, 4), second.draw(8, 0, 4)
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert any(not torch.equal(once[key], other[key]) for key in once)
    elsewhere = third.draw(7, 0, 4)
    assert any(not torch.equal(once[key], elsewhere[key]) for key in once), "another seed draws another batch"


def test_clips_are_told_their_middle_frame_and_their_rate(videos, tiny_family, tmp_path, monkeypatch):
    """Make-A-Video, arXiv:2209.14792, section 3.4: D^t knows the middle frame's embedding, and frames per second."""
    options = family_options("video-decoder", tiny_family) | {"condition_dropout": 0.0}
    step: Any = build_step(family_recipe("video-decoder", videos, tmp_path / "run", options), torch.device("cpu"))
    batch, drawn = step.draw(3, 0, 2), [step.sampler.sample(3, index) for index in range(2)]
    # Latents are the autoencoder's times its factor, as its decoder takes them divided by it.
    pixels = torch.from_numpy(step.cache.frames[drawn[0].frame_indices]).permute(0, 3, 1, 2) / 127.5 - 1
    latents = step.encodings.vae.encode(pixels).latent.detach() * VAE["scaling_factor"]
    torch.testing.assert_close(batch["latents"][0].transpose(0, 1), latents, atol=2e-3, rtol=2e-3)  # kept in float16
    embeds = torch.stack([torch.from_numpy(step.encodings.embeds[draw.frame_indices]).float() for draw in drawn])
    assert not torch.allclose(embeds[:, 0], embeds[:, 2])
    assert torch.equal(batch["embeds"], embeds[:, 2])
    told, forward = [], inflate.inflater.InflatedModel.forward

    def noting(self, *arguments, **options):
        told.append(options)
        return forward(self, *arguments, **options)

    monkeypatch.setattr(inflate.inflater.InflatedModel, "forward", noting)
    step(batch)
    [one] = told
    rates = [draw.fps for draw in drawn]
    assert rates[0] != rates[1] and one["fps"].tolist() == pytest.approx(rates)


@pytest.mark.parametrize("step", ["video-decoder", "video-super-resolution"])
def test_training_begins_with_the_temporal_weights_of_init(step, videos, tiny_family, tmp_path):
    options = family_options(step, tiny_family)
    fresh: Any = build_step(family_recipe(step, videos, tmp_path / "run", options), torch.device("cpu"))
    before = {name: torch.randn_like(value) for name, value in fresh.trained.temporal_state_dict().items()}
    fresh.trained.load_temporal_state_dict(before)
    inflate.save(fresh.trained, tmp_path / "before")
    begun: Any = build_step(
        family_recipe(step, videos, tmp_path / "run", options | {"init": str(tmp_path / "before")}), torch.device("cpu")
    )
    after = begun.trained.temporal_state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("trainable", ["temporal", "all"])
def test_only_what_is_trainable_changes(trainable, videos, tiny_family, tmp_path):
    options = family_options("video-decoder", tiny_family) | {"trainable": trainable}
    export = train(family_recipe("video-decoder", videos, tmp_path / "run", options), device="cpu", quiet=True)
    made = load_file(export / "unet/diffusion_pytorch_model.safetensors")
    before = load_file(tiny_family / "unet/diffusion_pytorch_model.safetensors")
    unchanged = all(torch.equal(made[name], value.half()) for name, value in before.items())
    assert unchanged == (trainable == "temporal")
    fresh = inflate.inflate(inflate.load(export / "unet").image_model.__class__(**UNET), num_frames=4)
    trained = inflate.load(export / "unet").temporal_state_dict()
    assert any(not torch.equal(trained[name], value) for name, value in fresh.temporal_state_dict().items())


def test_overfitting_one_batch_lowers_the_loss(videos, tiny_family, tmp_path):
    recipe = family_recipe("decoder", videos, tmp_path / "run", family_options("decoder", tiny_family))
    step = build_step(recipe, torch.device("cpu"))
    batch = step.draw(0, 0, 8)
    optimizer = torch.optim.AdamW(step.trained.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        torch.manual_seed(0)
        loss = step(batch).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("step", "change", "sentence"),
    [
        ("decoder", {"model": {"no_such_argument": 1}}, "does not fit UNet2DConditionModel"),
        ("video-decoder", {"trainable": "spatial"}, "use 'temporal' or 'all'"),
        ("video-decoder", {"scheme": "make-a-vidoe"}, "make-a-video"),
        ("decoder", {"weigthing": "v"}, "did you mean 'weighting'"),
    ],
)
def test_bad_options_are_one_sentence(step, change, sentence, videos, tiny_family, tmp_path):
    recipe = family_recipe(step, videos, tmp_path / "run", family_options(step, tiny_family) | change)
    with pytest.raises(InputError, match=sentence):
        build_step(recipe, torch.device("cpu"))


@pytest.mark.parametrize("step", sorted(set(FAMILY_STEPS) - {*PICTURE_STEPS, "distillation"}))
def test_steps_that_draw_clips_want_them_among_the_kinds(step, videos, tiny_family, tmp_path):
    recipe = family_recipe(step, videos, tmp_path / "run", family_options(step, tiny_family))
    recipe = replace(recipe, data=replace(recipe.data, kinds=("still",)))
    with pytest.raises(InputError, match=r"data.kinds is \['still'\], and this recipe trains on clips; add 'clip'"):
        build_step(recipe, torch.device("cpu"))


def test_a_folder_without_clips_is_refused(tiny_family, tmp_path):
    (tmp_path / "empty").mkdir()
    recipe = family_recipe("decoder", tmp_path / "empty", tmp_path / "run", family_options("decoder", tiny_family))
    with pytest.raises(InputError):
        build_step(recipe, torch.device("cpu"))
