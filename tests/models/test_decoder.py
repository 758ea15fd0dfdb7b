from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler

from inflate.errors import InputError
from inflate.inflater import inflate
from inflate.models.decoder import decode_latents, encode_pixels, image_conditioning, sample_latents
from inflate.sampling.noise import frame_noise
from tests.models.tiny_family import WIDTH, tiny_scheduler, tiny_unet, tiny_vae, tiny_video_unet

CPU = torch.device("cpu")

SETTINGS: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 2.0}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeds(count: int = 1) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, WIDTH, generator=seeded(9)), dim=-1)


def test_conditioning_has_norm_sqrt_dim_and_zeros_stay_zeros() -> None:
    given = torch.cat([3 * embeds(), torch.zeros(1, WIDTH)])
    made = image_conditioning(given)
    assert made["class_labels"].shape == (2, WIDTH) and made["encoder_hidden_states"].shape == (2, 1, WIDTH)
    torch.testing.assert_close(made["class_labels"][0], embeds()[0] * WIDTH**0.5)
    assert not made["class_labels"][1].any() and not made["encoder_hidden_states"][1].any()


def test_pictures_and_videos_have_their_shapes() -> None:
    pictures = sample_latents(tiny_unet(), tiny_scheduler(), embeds(2), generator=seeded(0), **SETTINGS)
    assert pictures.shape == (2, 4, 4, 4)
    video = sample_latents(tiny_video_unet(), tiny_scheduler(), embeds(), fps=8, generator=seeded(0), **SETTINGS)
    assert video.shape == (1, 4, 4, 4, 4) and video.dtype == torch.float32
    longer = sample_latents(tiny_video_unet(), tiny_scheduler(), embeds(), 3, 8, generator=seeded(0), **SETTINGS)
    assert longer.shape == (1, 4, 3, 4, 4)


def test_freshly_inflated_the_video_is_the_image_model_frame_by_frame() -> None:
    by_frame = sample_latents(tiny_unet(), tiny_scheduler(), embeds(), 4, generator=seeded(0), **SETTINGS)
    fresh = inflate(tiny_unet(), num_frames=4)
    # The image model has each frame alone in its batch, where a convolution may round otherwise.
    made = sample_latents(fresh, tiny_scheduler(), embeds(), 4, 8, generator=seeded(0), **SETTINGS)
    torch.testing.assert_close(made, by_frame, atol=1e-5, rtol=0)
    trained = sample_latents(tiny_video_unet(), tiny_scheduler(), embeds(), 4, 8, generator=seeded(0), **SETTINGS)
    assert not torch.allclose(trained, by_frame, atol=1e-3)


def test_noise_is_independent_per_frame_and_the_same_for_a_longer_video() -> None:
    # A scheduler of one step with v = 0 gives the noise back, scaled: x0 = alpha * noise.
    class Silent(torch.nn.Module):
        config, dtype = tiny_unet().config, torch.float32

        def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **conditioning: torch.Tensor) -> Any:
            return type("Output", (), {"sample": torch.zeros_like(sample)})

    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=True)
    once: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 1.0}
    short = sample_latents(Silent(), scheduler, embeds(2), 3, generator=[seeded(0), seeded(1)], **once)
    long = sample_latents(Silent(), scheduler, embeds(2), 5, generator=[seeded(0), seeded(1)], **once)
    assert torch.equal(short, long[:, :, :3])
    flat = long.transpose(1, 2).flatten(0, 1).flatten(1)
    correlation = torch.corrcoef(flat) - torch.eye(10)
    assert correlation.abs().max() < 0.5


class Recorder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unet = tiny_unet()
        self.config, self.dtype = self.unet.config, torch.float32
        self.calls: list[torch.Tensor] = []

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **conditioning: torch.Tensor) -> Any:
        self.calls.append(conditioning["class_labels"])
        return self.unet(sample, timestep, **conditioning)


def test_guidance_of_one_evaluates_only_the_embedding_and_zero_only_counts_zeros() -> None:
    made = {}
    for scale in (0.0, 1.0, 2.0):
        model = Recorder()
        made[scale] = sample_latents(
            model, tiny_scheduler(), embeds(), generator=seeded(0), num_inference_steps=3, guidance_scale=scale
        )
        assert [len(call) for call in model.calls] == ([1, 1, 1] if scale == 1 else [2, 2, 2])
        if scale != 1:
            assert not model.calls[0][0].any() and model.calls[0][1].any()
    zeros = sample_latents(
        tiny_unet(),
        tiny_scheduler(),
        torch.zeros(1, WIDTH),
        generator=seeded(0),
        num_inference_steps=3,
        guidance_scale=1.0,
    )
    torch.testing.assert_close(made[0.0], zeros, atol=1e-5, rtol=0)
    assert not torch.allclose(made[1.0], made[2.0], atol=1e-4)


@pytest.mark.reference
def test_one_ddim_step_is_the_angular_formula() -> None:
    """z_s = cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v, from noise to x0 in one step (phi_s = 0)."""
    unet = tiny_unet()
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    made = sample_latents(unet, scheduler, embeds(), generator=seeded(0), num_inference_steps=1, guidance_scale=1.0)
    noise = torch.randn(4, 4, 4, generator=seeded(0))[None]
    with torch.no_grad():
        velocity = unet(noise, 999, **image_conditioning(embeds())).sample
    phi = torch.acos(scheduler.alphas_cumprod[999].double().sqrt())
    true = torch.cos(-phi) * noise.double() + torch.sin(-phi) * velocity.double()
    torch.testing.assert_close(made.double(), true, atol=1e-5, rtol=0)


def test_fps_reaches_an_inflated_model() -> None:
    def at(fps: float | None) -> torch.Tensor:
        return sample_latents(tiny_video_unet(), tiny_scheduler(), embeds(), 4, fps, generator=seeded(0), **SETTINGS)

    assert not torch.allclose(at(4), at(30), atol=1e-5)
    assert not torch.allclose(at(4), at(None), atol=1e-5)


def test_latents_are_decoded_in_chunks_and_clipped() -> None:
    vae: Any = tiny_vae()
    latents = 10 * torch.randn(1, 4, 5, 4, 4, generator=seeded(1))
    made = decode_latents(vae, latents, pictures_at_once=2)
    assert made.shape == (1, 3, 5, 16, 16) and made.abs().max() <= 1
    with torch.no_grad():
        third = vae.decode(latents[:, :, 2] / 0.7).sample.clamp(-1, 1)
    torch.testing.assert_close(made[:, :, 2], third, atol=1e-5, rtol=0)
    assert torch.equal(decode_latents(None, latents[:, :3]), latents[:, :3].clamp(-1, 1))


@pytest.mark.parametrize("shift", [None, 0.3])
def test_encoding_scales_as_decoding_unscales(shift: float | None) -> None:
    torch.manual_seed(0)
    vae: Any = AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=4, scaling_factor=0.5, shift_factor=shift
    )
    vae.eval()
    pixels = torch.rand(2, 3, 8, 8, generator=seeded(2)) * 2 - 1
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mode()
        made = encode_pixels(vae, pixels)
        torch.testing.assert_close(made, (mean - (shift or 0)) * 0.5)
        torch.testing.assert_close(decode_latents(vae, made), vae.decode(mean).sample.clamp(-1, 1), atol=1e-5, rtol=0)
        other: Any = tiny_vae()
        direct = other.encode(torch.zeros(1, 3, 16, 16)).latent
        torch.testing.assert_close(encode_pixels(other, torch.zeros(1, 3, 16, 16)), direct * 0.7)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"image embeddings \(batch, 16\), got \(1, 7\)"):
        sample_latents(tiny_unet(), tiny_scheduler(), torch.zeros(1, 7), **SETTINGS)
    with pytest.raises(InputError, match="num_frames must be at least 1"):
        sample_latents(tiny_unet(), tiny_scheduler(), embeds(), 0, **SETTINGS)
    with pytest.raises(InputError, match="2 videos need as many generators, or one; got 1"):
        sample_latents(tiny_unet(), tiny_scheduler(), embeds(2), 3, generator=[seeded(0)], **SETTINGS)


def test_the_noise_of_a_video_follows_its_frame_rate() -> None:
    model = tiny_video_unet()
    model.scheme = model.scheme.changed(noise_time=0.5)

    def correlation(fps: float) -> float:
        noise = frame_noise(model, 8, 2, [torch.Generator().manual_seed(seed) for seed in range(8)], CPU, fps)
        return float(torch.corrcoef(noise.transpose(1, 2).transpose(0, 1).flatten(1))[0, 1])

    for fps in (2.0, 8.0, 30.0):
        assert correlation(fps) == pytest.approx(model.scheme.noise_share(fps), abs=0.06)
