"""The imported model is diffusers' own video model, and what is trained here runs in diffusers' pipeline."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter, UNetMotionModel

from inflate.checkpoint import load, save
from inflate.checkpoint.formats import export_motion, import_motion
from inflate.inflater import SCHEMES, inflate
from tests.cascade import foreign_pipelines as foreign
from tests.checkpoint.formats.files import VERSIONS, adapter, image_model
from tests.inflater.tiny_models import perturb

FRAMES = 6


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_the_imported_model_is_unet_motion_model(version: str, tmp_path: Path) -> None:
    image, motion = image_model(version), adapter(version)
    image.save_pretrained(tmp_path / "image")
    motion.save_pretrained(tmp_path / "adapter")
    import_motion(tmp_path / "adapter", tmp_path / "image", tmp_path / "video")
    ours = load(tmp_path / "video")

    theirs: Any = UNetMotionModel.from_unet2d(image, motion)
    theirs.eval()
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 4, FRAMES, 16, 16, generator=generator)
    states = torch.randn(2, 5, 12, generator=generator)
    added: dict[str, Any] = {}
    if len(VERSIONS[version][0]) == 3:
        # from_unet2d leaves this one random.
        theirs.add_embedding.load_state_dict(image.add_embedding.state_dict())
        added = {"text_embeds": torch.randn(2, 10, generator=generator), "time_ids": torch.ones(2, 6)}
    expected = theirs(
        sample,
        7,
        encoder_hidden_states=states.repeat_interleave(FRAMES, dim=0),
        **({"added_cond_kwargs": added} if added else {}),
    ).sample
    arguments: dict[str, Any] = {"added_cond_kwargs": added} if added else {}
    found = ours(sample, 7, encoder_hidden_states=states, **arguments).sample
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    plain = image(sample[:, :, 0], 7, encoder_hidden_states=states, **arguments).sample
    assert (plain - expected[:, :, 0]).abs().max() > 1e-2, "the motion modules do something"


@torch.no_grad()
def test_what_is_trained_here_runs_in_animatediff_pipeline(tmp_path: Path) -> None:
    image = image_model("animatediff-v2")
    scheme = SCHEMES["animatediff-v2"].changed(motion_heads=2, norm_num_groups=4)
    trained = inflate(image, scheme, 16)
    perturb(trained)
    save(trained, tmp_path / "video")
    export_motion(tmp_path / "video", tmp_path / "adapter", "motion-adapter")
    vocabulary = foreign.tokenizer(tmp_path / "vocabulary")
    torch.manual_seed(0)
    # Text as wide as this image model's cross-attention.
    from transformers import CLIPTextConfig, CLIPTextModel

    shape: dict[str, Any] = {"hidden_size": 12, "intermediate_size": 12, "num_hidden_layers": 1}
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            **shape, num_attention_heads=2, vocab_size=len(vocabulary), max_position_embeddings=foreign.TOKENS
        )
    ).eval()
    scheduler: Any = DDIMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    clean: Any = type(image).from_pretrained(tmp_path / "video")
    pipeline: Any = AnimateDiffPipeline(
        vae=foreign.small_vae("sd_vae", 3),
        text_encoder=text_encoder,
        tokenizer=vocabulary,
        unet=clean,
        motion_adapter=MotionAdapter.from_pretrained(tmp_path / "adapter"),
        scheduler=scheduler,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = pipeline(
        "red sun",
        num_frames=4,
        height=32,
        width=32,
        num_inference_steps=3,
        guidance_scale=7.5,
        latents=noise.clone(),
        output_type="latent",
    ).frames

    states = [
        text_encoder(
            vocabulary(text, padding="max_length", max_length=foreign.TOKENS, return_tensors="pt").input_ids
        ).last_hidden_state
        for text in ("", "red sun")
    ]
    ours, sample = load(tmp_path / "video"), noise
    scheduler.set_timesteps(3)
    for timestep in scheduler.timesteps:
        made = ours(torch.cat([sample, sample]), timestep, encoder_hidden_states=torch.cat(states)).sample
        unconditional, conditional = made.chunk(2)
        guess = unconditional + 7.5 * (conditional - unconditional)
        sample = scheduler.step(guess, timestep, sample).prev_sample
    torch.testing.assert_close(sample, expected, rtol=1e-4, atol=1e-4)
