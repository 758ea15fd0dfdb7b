"""What a conditioner gives a network is what diffusers' pipeline gives it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from inflate.bases import joined, open_base
from tests.bases import families
from tests.bases.test_pipelines import opened

PROMPT = "red sun"
NAMES = {
    "stable-diffusion": "StableDiffusionPipeline",
    "stable-diffusion-v": "StableDiffusionPipeline",
    "stable-diffusion-xl": "StableDiffusionXLPipeline",
    "pixart": "PixArtAlphaPipeline",
    "pixart-sigma": "PixArtSigmaPipeline",
    "sana": "SanaPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "dit": "DiTPipeline",
    "kandinsky": "KandinskyV22Pipeline",
}
# What a pipeline gives beside the arguments of its condition, and what the video model gives itself.
OTHERS = {"hidden_states", "timestep", "sample", "return_dict", "txt_ids", "img_ids", "timestep_cond"}
OTHERS |= {"cross_attention_kwargs", "joint_attention_kwargs", "added_cond_kwargs"}


class EnoughError(Exception):
    """Ends a pipeline at its first evaluation."""


def told_by_pipeline(network: torch.nn.Module, call: Any) -> dict[str, Any]:
    """The keyword arguments of the first evaluation."""
    kept: dict[str, Any] = {}

    def keep(module: Any, positional: Any, named: Any) -> None:
        kept.update(named)
        raise EnoughError

    handle = network.register_forward_pre_hook(keep, with_kwargs=True)
    with pytest.raises(EnoughError):
        call()
    handle.remove()
    return kept


def call_of(family: str, pipeline: Any, embeds: torch.Tensor) -> Any:
    if family == "dit":
        return lambda: pipeline([1], num_inference_steps=1, guidance_scale=4.0)
    options = {"num_inference_steps": 1, "height": 24, "width": 16}
    if family == "kandinsky":
        return lambda: pipeline(embeds[1:], embeds[:1], **options | {"height": 64, "width": 64})
    if family.startswith(("pixart", "sana")):
        options["use_resolution_binning"] = False
    if family == "sana":
        options |= {"height": 64, "width": 32}
    return lambda: pipeline(PROMPT, guidance_scale=2.5, **options)


def assert_equal(made: Any, wanted: Any, name: str) -> None:
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            assert_equal(made[key], value, f"{name}.{key}")
    elif wanted is None:
        assert made is None, name
    else:
        # The pipeline encodes a batch where we encode one by one.
        torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5, check_dtype=wanted.is_floating_point(), msg=name)


@pytest.mark.parametrize("family", NAMES)
def test_the_network_is_told_what_its_pipeline_tells_it(family: str, folders: Path) -> None:
    folder = folders / family
    base = open_base(folder, families.parts_of(family, folder))
    conditioner = base.conditioner()
    conditioner.load(torch.device("cpu"), torch.float32)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoding = conditioner.encode([PROMPT], picture, [1])
    if family != "flux":  # whose guidance is in its weights
        both = (encoding, conditioner.unconditional(1)) if family == "dit" else (conditioner.unconditional(1), encoding)
        encoding = joined(*both)
    height, width = (64, 64) if family == "kandinsky" else (24, 16)
    made = conditioner.arguments(encoding, height, width, 2.5)

    pipeline = opened(NAMES[family], folder)
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    embeds = encoding.get("image_embeds", torch.empty(0))
    kept = told_by_pipeline(network, call_of(family, pipeline, embeds))
    assert set(made) <= set(kept)
    assert not {name for name in set(kept) - set(made) if kept[name] is not None} - OTHERS
    for name, value in made.items():
        assert_equal(value, kept[name], name)
        assert_equal(kept[name], value, name)


def test_kandinskys_picture_is_embedded_as_its_prior_embeds_it(folders: Path) -> None:
    folder = folders / "kandinsky"
    base = open_base(folder, families.parts_of("kandinsky", folder))
    conditioner = base.conditioner()
    conditioner.load(torch.device("cpu"), torch.float32)
    prior = opened("KandinskyV22PriorPipeline", families.parts_of("kandinsky", folder)["base"])
    torch.testing.assert_close(conditioner.unconditional(1)["image_embeds"], prior.get_zero_embed(), check_dtype=False)
    levels = torch.randint(0, 256, (1, 16, 16, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pixels = prior.image_processor(list(levels.numpy()), return_tensors="pt").pixel_values
    wanted = prior.image_encoder(pixels).image_embeds
    made = conditioner.encode([""], levels.permute(0, 3, 1, 2).float() / 127.5 - 1)["image_embeds"]
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)
