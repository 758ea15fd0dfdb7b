"""What the loop does with a recipe's numbers: learning rates by name, compiling."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from inflate.errors import InputError
from inflate.train.loop import train
from inflate.train.recipe import TrainOptions

from .family_recipes import family_options, family_recipe

PREFIX = "temporal.conv_in"


def _weights(folder, **changes):
    def run(name, **more):
        options = family_options("video-decoder", folder[0])
        settings = {"steps": 1, "checkpoint_every": 1, "max_grad_norm": 1e9, "weight_decay": 0.0} | changes | more
        train(
            family_recipe("video-decoder", folder[1], folder[2] / name, options, **settings), device="cpu", quiet=True
        )
        return load_file(folder[2] / name / "state/step-00000001/state.safetensors")

    return run


def test_learning_rates_are_scaled_by_name(videos, tiny_family, tmp_path):
    run = _weights((tiny_family, videos, tmp_path))
    plain, scaled = run("plain"), run("scaled", learning_rate_scale={PREFIX: 0.25})
    # Adam's first step is the learning rate with the gradient's sign, so from a known start it shows the rate.
    bias, other = f"parameter.{PREFIX}.bias", "parameter.temporal.down_blocks-0-resnets-0-conv1.bias"
    assert plain[bias].abs().max() > 0
    torch.testing.assert_close(scaled[bias], 0.25 * plain[bias])
    assert torch.equal(scaled[other], plain[other])


def test_a_prefix_that_fits_nothing_is_refused(videos, tiny_family, tmp_path):
    run = _weights((tiny_family, videos, tmp_path))
    with pytest.raises(InputError, match="learning_rate_scale names 'temporall', with which no trained"):
        run("wrong", learning_rate_scale={"temporall": 2.0})
    with pytest.raises(InputError, match="'temporal' is 0; it must be a number above 0"):
        TrainOptions(1, 1, 1e-3, {"temporal": 0}, warmup_steps=0)


def test_compile_is_asked_of_the_trained_network_and_sheets_do_without(videos, tiny_family, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    stances = []
    set_stance = torch.compiler.set_stance
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: stances.append(stance) or set_stance(stance))
    recipe = family_recipe("decoder", videos, tmp_path / "run", family_options("decoder", tiny_family), compile=True)
    train(recipe, device="cpu", quiet=True)
    assert compiled == ["UNet2DConditionModel"]
    assert stances and set(stances) == {"force_eager"}
