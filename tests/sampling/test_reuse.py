"""Skipped work: features used again are those of the evaluation they come from; unguided steps take one half."""

from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DConditionModel
from torch import Tensor

from inflate.diffusion.guidance import Guidance, GuidanceOptions
from inflate.errors import InputError
from inflate.inflater import InflatedModel, inflate
from inflate.models.decoder import sample_latents
from inflate.sampling.denoiser import Denoiser, conditional_half, guidance_of
from inflate.sampling.windows import Windows
from tests.models.tiny_family import WIDTH, tiny_scheduler, tiny_unet

TIME = torch.tensor(500)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def video_unet() -> InflatedModel:
    """Three blocks, temporal layers in all of them no longer the identity."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    model = inflate(unet, num_frames=4)
    with torch.no_grad():
        for number, parameter in enumerate(model.temporal_parameters()):
            parameter += 0.05 * draw(*parameter.shape, seed=number)
    return model.eval()


def asked(model: InflatedModel, reuse: int, **more: Any) -> Denoiser:
    told = {"encoder_hidden_states": draw(2, 3, 8, seed=5)}
    return Denoiser(model, tiny_scheduler(), told, Guidance(3.0), reuse=reuse, **more)


@torch.no_grad()
def test_at_the_same_place_what_is_used_again_gives_the_same_answer() -> None:
    model, sample = video_unet(), draw(1, 4, 4, 8, 8)
    plain = asked(model, 1)(sample, TIME)
    again = asked(model, 3)
    for _ in range(3):
        assert torch.equal(again(sample, TIME), plain)


@torch.no_grad()
def test_deep_blocks_run_at_every_third_evaluation_and_the_outermost_always() -> None:
    model = video_unet()
    unet = model.image_model
    seen = {"outer": 0, "deep": 0}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: Any) -> None:
            seen[name] += 1

        return hook

    # The resnets inside: hooks of a block itself run whether or not it answers from what is kept.
    outer, deep = unet.down_blocks[0].resnets[0], unet.mid_block.resnets[0]
    handles = [outer.register_forward_pre_hook(watch("outer")), deep.register_forward_pre_hook(watch("deep"))]
    denoiser, exact = asked(model, 3), asked(model, 1)
    answers = [denoiser(draw(1, 4, 4, 8, 8, seed=number), TIME) for number in range(7)]
    for handle in handles:
        handle.remove()
    assert seen == {"outer": 7, "deep": 3}
    for number, answer in enumerate(answers):
        wanted = exact(draw(1, 4, 4, 8, 8, seed=number), TIME)
        assert torch.equal(answer, wanted) is (number % 3 == 0), "features of another sample are another answer"
    assert not any("forward" in vars(module) for module in unet.modules()), "the image model is as it was"


@torch.no_grad()
def test_windows_keep_features_of_their_own_and_stay_while_these_are_used() -> None:
    model, sample = video_unet(), draw(1, 4, 11, 8, 8)
    plain = asked(model, 1, windows=Windows(4, 2, moving=False))(sample, TIME)
    again = asked(model, 2, windows=Windows(4, 2, moving=True))
    first = again(sample, TIME)
    assert torch.equal(first, plain) and torch.equal(again(sample, TIME), first)


@torch.no_grad()
def test_the_image_model_is_as_it_was_after_an_error() -> None:
    model = video_unet()
    denoiser = asked(model, 2)
    with pytest.raises(InputError, match="channels"):
        denoiser(draw(1, 5, 4, 8, 8), TIME)
    assert not any("forward" in vars(module) for module in model.image_model.modules())


def test_networks_without_deep_blocks_are_refused() -> None:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, num_layers=1, sample_size=8, patch_size=2,
        norm_num_groups=4, num_embeds_ada_norm=10,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"reuse keeps the deep features of a UNet.*DiTTransformer2DModel is not"):
        asked(inflate(transformer, "latte", num_frames=4), 2)


@pytest.mark.parametrize("reuse", [0, 101, True, 1.5])
def test_bad_numbers_are_refused(reuse: Any) -> None:
    with pytest.raises(InputError, match="reuse must be a whole number of evaluations from 1 to 100"):
        GuidanceOptions(reuse=reuse)


@torch.no_grad()
def test_steps_outside_the_interval_take_one_evaluation_and_are_the_conditional_answer() -> None:
    model, scheduler = tiny_unet(), tiny_scheduler()
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    embeds = torch.nn.functional.normalize(draw(1, WIDTH, seed=3))

    def sampled(options: GuidanceOptions, scale: float = 3.0) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        chosen: dict[str, Any] = {"num_inference_steps": 8, "guidance_scale": scale, "generator": generator}
        return sample_latents(model, scheduler, embeds, options=options, **chosen)

    always = sampled(GuidanceOptions())
    assert sizes == [2] * 8
    sizes.clear()
    some = sampled(GuidanceOptions(guidance_interval=(0.25, 0.75)))
    assert sizes == [1, 1, 2, 2, 2, 2, 1, 1]
    assert not torch.allclose(some, always, atol=1e-3)
    torch.testing.assert_close(sampled(GuidanceOptions(guidance_interval=(0.0, 1.0))), always)
    never = sampled(GuidanceOptions(), 1.0)
    early = sampled(GuidanceOptions(guidance_interval=(0.95, 1.0)))
    torch.testing.assert_close(early, never, atol=1e-5, rtol=1e-5)
    handle.remove()


@pytest.mark.parametrize("interval", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.8, 0.2), (float("nan"), 1.0)])
def test_bad_intervals_are_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="guidance_interval must be two shares of the steps"):
        GuidanceOptions(guidance_interval=interval)


def test_an_interval_and_oscillation_go_together() -> None:
    options = GuidanceOptions(guidance_interval=(0.2, 0.8), guidance_oscillate=2.0)
    guidance = guidance_of(5.0, options, tiny_scheduler(), 10)
    scales = [guidance.scale_at(timestep) for timestep in guidance.timesteps]
    assert scales == [1, 1, 2, 5, 2, 5, 2, 5, 1, 1]
    assert set(guidance.scales) == {1.0, 2.0, 5.0}


def test_the_conditional_half_of_all_kinds_of_arguments() -> None:
    pair, one = draw(4, 3), draw(3, 3, seed=1)
    told = {
        "states": pair,
        "more": {"text_embeds": pair[:, 0]},
        "layers": [pair, pair + 1, pair + 2],
        "each": [one, one + 1, one + 2, one + 3],
        "scale": 2.0,
        "table": one,
        "none": None,
    }
    half = conditional_half(told, 2)
    assert torch.equal(half["states"], pair[2:]) and torch.equal(half["more"]["text_embeds"], pair[2:, 0])
    assert [len(layer) for layer in half["layers"]] == [2, 2, 2] and torch.equal(half["layers"][2], pair[2:] + 2)
    assert len(half["each"]) == 2 and torch.equal(half["each"][0], one + 2)
    assert half["scale"] == 2.0 and half["table"] is one and half["none"] is None


def test_a_stage_and_the_command_know_them() -> None:
    from inflate.cli.checks import parse_sampling

    chosen = parse_sampling("", "", guidance_interval="0.2-0.8", reuse="decoder=3")
    assert chosen["guidance_interval"] == (0.2, 0.8) and chosen["reuse"] == {"decoder": 3}
    with pytest.raises(InputError, match=r"--guidance-interval is .*such as 0\.2-0\.8"):
        parse_sampling("", "", guidance_interval="0.2")
