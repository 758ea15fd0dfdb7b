import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inflate.cascade import Cascade
from inflate.checkpoint import convert
from inflate.errors import InputError
from inflate.stages import ChainState, StageSettings
from inflate.video import Video
from tests.cascade import foreign_pipelines as foreign
from tests.cascade.foreign_pipelines import ALL_KARLO, KANDINSKY, assert_same, role_file, seeded

PROMPT = "red sun"


def one_generator(monkeypatch: pytest.MonkeyPatch, seed: int = 5) -> None:
    """Every stage draws from one generator, one after the other, as diffusers' pipelines do."""
    generator = seeded(seed)
    for module in ("inflate.models.prior", "inflate.models.foreign", "superres.spatiotemporal", "superres.spatial"):
        monkeypatch.setattr(f"{module}.stage_generator", lambda seed, name: generator)


def test_karlo_gives_what_its_own_pipeline_gives(karlo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pipeline = karlo
    cascade = Cascade.from_pretrained(role_file(folder.parent, ALL_KARLO), device="cpu")
    wanted = pipeline(
        PROMPT,
        prior_num_inference_steps=4,
        decoder_num_inference_steps=3,
        super_res_num_inference_steps=3,
        generator=seeded(5),
        output_type="np",
    ).images
    one_generator(monkeypatch)
    made = cascade(PROMPT, 1, frame_skip=1, output_type="np")
    assert isinstance(made.frames, np.ndarray) and made.frames.shape == (1, 1, 4 * foreign.FRAME, 4 * foreign.FRAME, 3)
    assert_same(made.frames[0], wanted)
    # The embedding keeps the norm that Karlo's decoder knows.
    assert made.image_embeds is not None and abs(made.image_embeds.norm().item() - 1) > 0.1


def test_without_a_prompt_karlos_decoder_reads_the_empty_text(karlo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pipeline = karlo
    text = ALL_KARLO.replace("read_prompt = true\n", "")
    cascade = Cascade.from_pretrained(role_file(folder.parent, text), device="cpu")
    wanted = pipeline(
        "",
        prior_num_inference_steps=4,
        decoder_num_inference_steps=3,
        super_res_num_inference_steps=3,
        generator=seeded(5),
        output_type="np",
    ).images
    one_generator(monkeypatch)
    embeds = cascade.stage("prior")
    assert embeds is not None
    # The pipeline's own embedding of the empty prompt, then frames without any prompt.
    with torch.no_grad(), cascade.loaded(embeds):
        state = ChainState(("",), (0,), 1, 8.0, frame_skip=1)
        made = embeds(state, StageSettings(4, 4.0), lambda video, step, time, sample, share=None: sample).image_embeds
    frames = cascade(image_embeds=made, num_frames=1, frame_skip=1, output_type="np").frames
    assert isinstance(frames, np.ndarray)
    assert_same(frames[0], wanted)


def test_the_x4_upscaler_gives_what_its_own_pipeline_gives(upscaler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pipeline = upscaler
    text = '[upscaler]\nfrom = "x4"\nnum_inference_steps = 3\nnoise_level = 0.1'
    cascade = Cascade.from_pretrained(role_file(folder.parent, text), device="cpu")
    low = torch.rand(1, 3, 16, 16, generator=seeded(1)) * 2 - 1
    wanted = pipeline(
        "",
        image=low / 2 + 0.5,
        num_inference_steps=3,
        guidance_scale=1.0,
        noise_level=100,
        generator=seeded(5),
        output_type="np",
    ).images
    one_generator(monkeypatch)
    [made] = cascade.upscale_chunks(iter([low.transpose(0, 1)]))
    assert made.shape == (3, 1, 64, 64)
    assert_same((made[:, 0].permute(1, 2, 0).numpy() + 1) / 2, wanted[0])


@pytest.mark.parametrize("version", ["2.2", "2.1", "2.1 with the prompt"])
def test_kandinsky_gives_what_its_own_pipelines_give(
    kandinsky: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, prior, *decoders = kandinsky
    read_prompt = version.endswith("prompt")
    text = KANDINSKY.replace("VERSION", version[:3]) + ("read_prompt = true" if read_prompt else "")
    cascade = Cascade.from_pretrained(role_file(folder, text), device="cpu")
    generator = seeded(5)
    told = prior(PROMPT, num_inference_steps=4, generator=generator)
    options = {"num_inference_steps": 3, "generator": generator, "output_type": "np", "height": 64, "width": 64}
    if version == "2.2":
        wanted = decoders[0](told.image_embeds, told.negative_image_embeds, **options).images
    else:
        prompt = PROMPT if read_prompt else ""
        options["guidance_scale"] = 4.0
        wanted = decoders[1](prompt, told.image_embeds, told.negative_image_embeds, **options).images
    one_generator(monkeypatch)
    made = cascade(PROMPT, 1, output_type="np")
    assert cascade.frame_size() == 64
    assert made.image_embeds is not None and isinstance(made.frames, np.ndarray)
    torch.testing.assert_close(made.image_embeds, told.image_embeds)
    # Random weights in a MoVQ make 1e-7 of a latent 1e-4 of a pixel, where our calls and theirs round differently
    # (measured on two processors).
    assert_same(made.frames[0], wanted, tolerance=5e-4)


def test_a_video_is_varied_by_kandinsky_from_its_own_image_encoder(kandinsky: Any) -> None:
    folder, prior, *_ = kandinsky
    cascade = Cascade.from_pretrained(role_file(folder, KANDINSKY.replace("VERSION", "2.2")), device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    out = cascade.vary(Video(frames, 8.0), num_frames=2, generator=seeded(), num_inference_steps=2, output_type="pt")
    assert isinstance(out.frames, torch.Tensor) and out.frames.shape == (1, 2, 3, 64, 64)
    assert out.image_embeds is not None
    pixels = prior.image_processor(list(frames), return_tensors="pt").pixel_values
    embeds = prior.image_encoder(pixels).image_embeds
    cosine = torch.nn.functional.cosine_similarity(out.image_embeds, embeds.mean(0, keepdim=True))
    # The processor rounds resized pixels to whole levels; nothing else differs.
    assert cosine.item() > 0.999
    torch.testing.assert_close(out.image_embeds.norm(), embeds.norm(dim=1).mean(), atol=0.02, rtol=0.02)


def test_every_stage_runs_in_half_precision(karlo: Any, upscaler: Any, kandinsky: Any, tmp_path: Path) -> None:
    for prior, decoder in (
        (karlo[0], karlo[0]),
        (kandinsky[0] / "prior", kandinsky[0] / "decoder-2.2"),
        (kandinsky[0] / "prior", kandinsky[0] / "decoder-2.1"),
    ):
        text = f'[prior]\nfrom = "{prior}"\n[decoder]\nfrom = "{decoder}"\n[upscaler]\nfrom = "{upscaler[0]}"'
        cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu", dtype=torch.bfloat16)
        steps = {"prior": 2, "decoder": 2, "upscaler": 1}
        frames = cascade(PROMPT, 1, num_inference_steps=steps, output_type="pt").frames
        assert isinstance(frames, torch.Tensor) and frames.dtype == torch.float32 and bool(frames.isfinite().all())


@pytest.mark.parametrize("whose", ["karlo", "decoder-2.2"])
def test_new_temporal_layers_change_no_frame(karlo: Any, kandinsky: Any, tmp_path: Path, whose: str) -> None:
    source = karlo[0] if whose == "karlo" else kandinsky[0] / whose
    convert(source, tmp_path / "video", num_frames=3)
    frames = []
    for folder in (source, tmp_path / "video"):
        # Kandinsky's guidance needs the prior's image encoder, which nobody lends here.
        text = f'[decoder]\nfrom = "{folder}"\nguidance_scale = {8.0 if whose == "karlo" else 1.0}'
        cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")
        embeds = torch.randn(1, foreign.WIDTH, generator=seeded(1))
        made = cascade(image_embeds=embeds, num_frames=3, generator=seeded(), num_inference_steps=2, output_type="np")
        assert isinstance(made.frames, np.ndarray)
        frames.append(made.frames[0])
    assert not np.allclose(frames[0][0], frames[0][1], atol=1e-2)
    # One frame rounds otherwise than three together, and these networks make more of it at each step.
    assert_same(frames[1], frames[0], tolerance=2e-3)


def test_equal_frames_are_upscaled_equally_however_they_are_cut(upscaler: Any) -> None:
    text = f'[upscaler]\nfrom = "{upscaler[0]}"\nnum_inference_steps = 2'
    cascade = Cascade.from_pretrained(role_file(upscaler[0].parent, text), device="cpu", keep_loaded=True)
    low = (torch.rand(3, 1, 12, 20, generator=seeded(1)) * 2 - 1).expand(3, 3, 12, 20).clone()
    low[:, 1] = -low[:, 1]
    one = torch.cat(list(cascade.upscale_chunks(iter([low]), generator=seeded())), 1)
    cut = torch.cat(list(cascade.upscale_chunks(iter([low[:, :1], low[:, 1:]]), generator=seeded())), 1)
    assert one.shape == (3, 3, 48, 80) and torch.equal(one, cut)
    assert torch.equal(one[:, 0], one[:, 2]) and not torch.allclose(one[:, 0], one[:, 1], atol=1e-2)


def test_large_pictures_are_upscaled_in_tiles(upscaler: Any) -> None:
    low = torch.rand(3, 1, 32, 32, generator=seeded(1)) * 2 - 1
    made = []
    for options in ("", "tile = 64\ntile_overlap = 32\ndecode_tile = 64\n"):
        text = f'[upscaler]\nfrom = "{upscaler[0]}"\nnum_inference_steps = 1\n{options}'
        cascade = Cascade.from_pretrained(role_file(upscaler[0].parent, text), device="cpu")
        made.append(torch.cat(list(cascade.upscale_chunks(iter([low]), generator=seeded())), 1))
    whole, tiled = made
    assert tiled.shape == whole.shape == (3, 1, 128, 128) and not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.2 * whole.std()
    # No seam: the steps from pixel to pixel are no larger where tiles begin or end than elsewhere.
    steps = (tiled[..., 1:] - tiled[..., :-1]).abs().mean(dim=(0, 1, 2))
    assert steps[31::32].max() < 1.5 * steps.mean()


def test_noise_beyond_training_is_refused(upscaler: Any, tmp_path: Path) -> None:
    index = json.loads((upscaler[0] / "model_index.json").read_text())
    assert index["max_noise_level"] == 350
    (tmp_path / "x4").mkdir()
    for path in upscaler[0].iterdir():
        if path.is_dir():
            (tmp_path / "x4" / path.name).symlink_to(path)
    # What the pipeline's index says holds; a role file may say otherwise.
    (tmp_path / "x4" / "model_index.json").write_text(json.dumps(index | {"max_noise_level": 100}))
    for options, refused in (("noise_level = 0.2", True), ("noise_level = 0.2\nmax_noise_level = 200", False)):
        text = f'[upscaler]\nfrom = "x4"\nnum_inference_steps = 1\n{options}'
        cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")
        if refused:
            with pytest.raises(InputError, match=r"noise_level is 0.2; this upscaler was trained for up to 0.1"):
                list(cascade.upscale_chunks(iter([torch.zeros(3, 1, 8, 8)])))
        else:
            assert len(list(cascade.upscale_chunks(iter([torch.zeros(3, 1, 8, 8)])))) == 1
