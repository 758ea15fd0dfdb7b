"""Our sampling and diffusers' own pipelines, with the same weights and noise: the same pictures, the same arguments."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from inflate.bases import open_base
from inflate.cascade import Cascade
from tests.bases import families
from tests.cascade.foreign_pipelines import assert_same, seeded

PROMPT = "red sun"
SIDE = families.SIDE
PLAIN = {"height": SIDE, "width": SIDE, "output_type": "np"}


def opened(name: str, folder: Path) -> Any:
    index = json.loads((folder / "model_index.json").read_text())
    absent = {role: None for role, entry in index.items() if entry == [None, None]}
    pipeline = getattr(diffusers, name).from_pretrained(folder, local_files_only=True, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixart(kind: str) -> Callable[..., Any]:
    def call(folder: Path, noise: torch.Tensor, **options: Any) -> Any:
        return opened(kind, folder)(
            PROMPT, latents=noise[:, :, 0], use_resolution_binning=False, clean_caption=False, **PLAIN, **options
        )

    return call


def sd3(folder: Path, noise: torch.Tensor, **options: Any) -> Any:
    return opened("StableDiffusion3Pipeline", folder)(PROMPT, latents=noise[:, :, 0], **PLAIN, **options)


def flux(folder: Path, noise: torch.Tensor, **options: Any) -> Any:
    packed = diffusers.FluxPipeline._pack_latents(noise[:, :, 0], 1, *noise.shape[1:2], *noise.shape[3:])
    tokens = 512 if options["guidance_scale"] != 1 else 256
    return opened("FluxPipeline", folder)(PROMPT, latents=packed, max_sequence_length=tokens, **PLAIN, **options)


def dit(folder: Path, noise: torch.Tensor, **options: Any) -> Any:
    pipeline = opened("DiTPipeline", folder)
    # It takes no latents: its generator's first draw is given instead.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda *rest, **more: noise[:, :, 0])
        return pipeline(pipeline.get_label_ids(["goldfish"]), output_type="np", **options)


def ddpm(folder: Path, noise: torch.Tensor, **options: Any) -> Any:
    pipeline = opened("DDIMPipeline", folder)
    options.pop("guidance_scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *rest, **more: noise[:, :, 0])
        return pipeline(output_type="np", **options)


PIPELINES: dict[str, tuple[Callable[..., Any], str | None, tuple[float, ...]]] = {
    "pixart": (pixart("PixArtAlphaPipeline"), PROMPT, (1.0, 4.5)),
    "pixart-sigma": (pixart("PixArtSigmaPipeline"), PROMPT, (1.0, 4.5)),
    "sd3": (sd3, PROMPT, (1.0, 7.0)),
    "flux": (flux, PROMPT, (3.5,)),
    "dit": (dit, "goldfish", (1.0, 4.0)),
    "unconditional": (ddpm, None, (1.0,)),
}
CASES = [(family, scale) for family, (_, _, scales) in PIPELINES.items() for scale in scales]


def same_pictures(family: str, folder: Path, scale: float, patch: pytest.MonkeyPatch) -> None:
    call, prompt, _ = PIPELINES[family]
    channels, factor = open_base(folder).autoencoder().channels, open_base(folder).autoencoder().factor
    noise = torch.randn(1, channels, 1, SIDE // factor, SIDE // factor, generator=seeded(5))
    wanted = call(folder, noise, num_inference_steps=4, guidance_scale=scale).images
    patch.setattr("inflate.models.decoder.frame_noise", lambda *rest: noise)
    cascade = Cascade.from_pretrained(folder, device="cpu")
    made = cascade(prompt, 1, num_inference_steps=4, guidance_scale=scale, output_type="np").frames
    assert isinstance(made, np.ndarray) and made.shape == (1, 1, SIDE, SIDE, 3)
    assert_same(made[0], wanted)


@pytest.mark.parametrize(("family", "scale"), CASES)
def test_a_frame_is_the_pipelines_own_picture(
    family: str, scale: float, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders / family
    if family == "unconditional":  # a DDPM draws noise at each step; DDIM of the same weights does not
        diffusers.DDIMPipeline(**opened("DDPMPipeline", folder).components).save_pretrained(tmp_path / "ddim")
        folder = tmp_path / "ddim"
    same_pictures(family, folder, scale, monkeypatch)


def test_sd3_without_t5_and_with_dynamic_shift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    families.sd3(tmp_path / "sd3", with_t5=False, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    assert "text_encoder_3" not in open_base(tmp_path / "sd3").parts
    same_pictures("sd3", tmp_path / "sd3", 7.0, monkeypatch)


def test_flux_schnell_has_no_guidance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    families.flux(tmp_path / "flux", guidance_embeds=False)
    settings = Cascade.from_pretrained(tmp_path / "flux", device="cpu").settings()["decoder"]
    assert (settings.num_inference_steps, settings.guidance_scale) == (4, 1.0)
    same_pictures("flux", tmp_path / "flux", 1.0, monkeypatch)
