from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inflate.cascade import Cascade
from tests.cascade import foreign_pipelines as foreign

PROMPT = "red sun"
FRAME = foreign.FRAME


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def role_file(folder: Path, text: str) -> Path:
    path = folder / "roles.toml"
    path.write_text(text)
    return path


def one_generator(monkeypatch: pytest.MonkeyPatch, seed: int = 5) -> None:
    """Every stage draws from one generator, one after the other, as diffusers' pipelines do."""
    generator = seeded(seed)
    for module in ("inflate.models.prior", "inflate.models.foreign", "superres.spatiotemporal", "superres.spatial"):
        monkeypatch.setattr(f"{module}.stage_generator", lambda seed, name: generator)


@pytest.fixture(scope="module")
def karlo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("foreign") / "karlo"
    return folder, foreign.karlo(folder)


ALL_KARLO = """
name = "karlo"
[prior]
from = "karlo"
num_inference_steps = 4
[decoder]
from = "karlo"
num_inference_steps = 3
read_prompt = true
[super_resolution]
from = "karlo"
num_inference_steps = 3
"""


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
    assert isinstance(made.frames, np.ndarray) and made.frames.shape == (1, 1, 4 * FRAME, 4 * FRAME, 3)
    assert wanted.std() > 0.05
    np.testing.assert_allclose(made.frames[0], wanted, atol=2e-5)
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
        from inflate.stages import ChainState, StageSettings

        state = ChainState(("",), (0,), 1, 8.0, frame_skip=1)
        made = embeds(state, StageSettings(4, 4.0), lambda video, step, timestep, sample: sample).image_embeds
    frames = cascade(image_embeds=made, num_frames=1, frame_skip=1, output_type="np").frames
    assert isinstance(frames, np.ndarray)
    np.testing.assert_allclose(frames[0], wanted, atol=2e-5)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("foreign") / "x4"
    return folder, foreign.stable_diffusion_x4(folder)


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
    assert made.shape == (3, 1, 64, 64) and wanted.std() > 0.05
    np.testing.assert_allclose((made[:, 0].permute(1, 2, 0).numpy() + 1) / 2, wanted[0], atol=2e-5)


@pytest.fixture(scope="module")
def kandinsky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("foreign")
    return folder, foreign.kandinsky_22(folder / "kandinsky-prior", folder / "kandinsky-decoder")


KANDINSKY = """
name = "kandinsky"
[prior]
from = "kandinsky-prior"
num_inference_steps = 4
[decoder]
from = "kandinsky-decoder"
num_inference_steps = 3
"""


def test_kandinsky_gives_what_its_own_pipelines_give(kandinsky: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, (prior, decoder) = kandinsky
    cascade = Cascade.from_pretrained(role_file(folder, KANDINSKY), device="cpu")
    generator = seeded(5)
    told = prior(PROMPT, num_inference_steps=4, generator=generator)
    wanted = decoder(
        told.image_embeds,
        told.negative_image_embeds,
        height=64,
        width=64,
        num_inference_steps=3,
        generator=generator,
        output_type="np",
    ).images
    one_generator(monkeypatch)
    made = cascade(PROMPT, 1, output_type="np")
    assert cascade.frame_size() == 64 and wanted.std() > 0.05
    assert made.image_embeds is not None and isinstance(made.frames, np.ndarray)
    torch.testing.assert_close(made.image_embeds, told.image_embeds)
    np.testing.assert_allclose(made.frames[0], wanted, atol=2e-5)
