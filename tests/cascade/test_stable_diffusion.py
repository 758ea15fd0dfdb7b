"""Stable Diffusion as the decoder: its own pipeline's pictures, videos of an inflated one, and Text2Video-Zero."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from inflate.cascade import Cascade
from inflate.checkpoint import convert
from inflate.cli.app import main
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from tests.cascade import foreign_pipelines as foreign
from tests.cascade.foreign_pipelines import assert_same, role_file, seeded

PROMPT = "red sun"
SIDE = 16  # px


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd") / "sd15"
    return folder, foreign.stable_diffusion(folder)


@pytest.fixture(scope="module")
def stable_diffusion_xl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sdxl") / "sdxl"
    return folder, foreign.stable_diffusion_xl(folder)


def noise_of(monkeypatch: pytest.MonkeyPatch, seed: int = 5) -> torch.Tensor:
    """Both pipelines start from this noise (1, 4, 1, 8, 8)."""
    noise = torch.randn(1, 4, 1, 8, 8, generator=seeded(seed))
    monkeypatch.setattr("inflate.models.decoder.frame_noise", lambda *rest: noise)
    return noise


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl"])
def test_a_frame_is_the_pipelines_own_picture(
    name: str, guidance_scale: float, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, pipeline = request.getfixturevalue(name)
    noise = noise_of(monkeypatch)
    options = {"num_inference_steps": 4, "guidance_scale": guidance_scale, "output_type": "np"}
    wanted = pipeline(PROMPT, latents=noise[:, :, 0], height=SIDE, width=SIDE, **options).images
    cascade = Cascade.from_pretrained(folder, device="cpu")
    assert [stage.name for stage in cascade.stages] == ["decoder"]
    made = cascade(PROMPT, 1, **options).frames
    assert isinstance(made, np.ndarray) and made.shape == (1, 1, SIDE, SIDE, 3)
    assert_same(made[0], wanted)
    other = cascade("blue moon", 1, **options).frames
    assert isinstance(other, np.ndarray) and not np.allclose(other, made, atol=1e-2), "it reads the prompt"


# Of diffusers 0.42 on NumPy 2, DEIS and KDPM2 warn of its end, and LMS needs SciPy.
SAMPLERS = (
    "DDPMScheduler DPMSolverMultistepScheduler DPMSolverSinglestepScheduler EulerDiscreteScheduler "
    "EulerAncestralDiscreteScheduler HeunDiscreteScheduler LCMScheduler PNDMScheduler TCDScheduler "
    "UniPCMultistepScheduler"
).split()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_folders_own_sampler_is_the_one(
    name: str, stable_diffusion: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in diffusers, draw for draw: both are given the same noise at each step."""
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(stable_diffusion[0])
    used = getattr(diffusers, name)
    pipeline.scheduler = used.from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(tmp_path / name)
    home = importlib.import_module(used.__module__)
    if hasattr(home, "randn_tensor"):
        monkeypatch.setattr(home, "randn_tensor", lambda shape, **how: torch.linspace(-1, 1, 256).reshape(shape))
    noise = noise_of(monkeypatch)
    options = {"num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "np"}
    wanted = pipeline(PROMPT, latents=noise[:, :, 0], height=SIDE, width=SIDE, **options).images
    made = Cascade.from_pretrained(tmp_path / name, device="cpu")(PROMPT, 1, **options).frames
    assert isinstance(made, np.ndarray)
    assert_same(made[0], wanted)


@pytest.mark.parametrize("kind", ["stable_diffusion", "stable_diffusion_xl"])
def test_latent_consistency_is_told_its_guidance(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network is evaluated once, and knows the scale; as diffusers' pipeline of the same folder."""
    pipeline = type(request.getfixturevalue(kind)[1]).from_pretrained(request.getfixturevalue(kind)[0])
    unet = diffusers.UNet2DConditionModel(**{**pipeline.unet.config, "time_cond_proj_dim": 16})
    pipeline.unet = foreign.randomized(unet, 3)
    pipeline.scheduler = diffusers.LCMScheduler.from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(tmp_path / "lcm")
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_lcm.randn_tensor",
        lambda shape, **how: torch.linspace(-1, 1, 256).reshape(shape),
    )
    noise, cascade = noise_of(monkeypatch), Cascade.from_pretrained(tmp_path / "lcm", device="cpu")
    told = []
    for scale in (8.5, 2.0):
        options = {"num_inference_steps": 4, "guidance_scale": scale, "output_type": "np"}
        wanted = pipeline(PROMPT, latents=noise[:, :, 0], height=SIDE, width=SIDE, **options).images
        made = cascade(PROMPT, 1, **options).frames
        assert isinstance(made, np.ndarray)
        assert_same(made[0], wanted)
        told.append(made)
    assert not np.allclose(*told, atol=1e-3), "the scale tells"
    with pytest.raises(InputError, match="this Stable Diffusion has its guidance in its weights"):
        cascade(PROMPT, 1, num_inference_steps=2, guidance_rescale=0.5)
    convert(tmp_path / "lcm", tmp_path / "video", "animatediff-v2", num_frames=3)
    video = Cascade.from_pretrained(tmp_path / "video", device="cpu")
    monkeypatch.undo()
    frames = video(PROMPT, 3, num_inference_steps=2).frames
    assert frames is not None and len(frames[0]) == 3


def test_a_sampler_that_two_files_disagree_on_is_named(stable_diffusion: Any, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "two"
    shutil.copytree(stable_diffusion[0], folder)
    said = folder / "scheduler" / "scheduler_config.json"
    said.write_text(json.dumps({**json.loads(said.read_text()), "_class_name": "LCMScheduler"}))
    arguments = ["generate", PROMPT, "--frames", "1", "--steps", "2", "--device", "cpu", "--no-sheet"]
    for model, count in ((folder, 1), (stable_diffusion[0], 0)):
        assert main([*arguments, "--model", str(model), "-o", str(tmp_path / f"{count}.gif")]) == 0
        error = capsys.readouterr().err
        assert error.count("Sampled by DDIMScheduler, as") == count
        assert error.count("is that of an LCMScheduler") == count


def test_an_inflated_pipeline_folder_makes_videos(stable_diffusion: Any, tmp_path: Path) -> None:
    convert(stable_diffusion[0], tmp_path / "video", "animatediff-v2", num_frames=3)
    out = tmp_path / "out.gif"
    arguments = ["--model", str(tmp_path / "video"), "--frames", "3", "--steps", "2", "--device", "cpu", "--no-sheet"]
    assert main(["generate", PROMPT, "-o", str(out), "--quiet", *arguments]) == 0
    assert out.stat().st_size > 0
    text = f'[decoder]\nfrom = "{tmp_path / "video"}"\nnegative_prompt = "blue"\nguidance_scale = 3.0'
    cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu", keep_loaded=True)
    frames = cascade(PROMPT, 3, num_inference_steps=2, output_type="pt").frames
    assert isinstance(frames, torch.Tensor) and frames.shape == (1, 3, 3, SIDE, SIDE)
    loaded: Any = cascade.stages[0]
    assert isinstance(loaded.components["unet"], InflatedModel)
    with pytest.raises(InputError, match="makes frames from a prompt, and there is none"):
        cascade(image_embeds=torch.randn(1, 16), num_frames=1, num_inference_steps=2)


def test_text2video_zero_needs_no_training(stable_diffusion: Any, tmp_path: Path) -> None:
    convert(stable_diffusion[0], tmp_path / "zero", "text2video-zero", num_frames=4)
    options: dict[str, Any] = {"num_inference_steps": 10, "output_type": "pt"}

    def made(name: str, motion: float, num_frames: int = 4) -> torch.Tensor:
        text = f'[decoder]\nfrom = "{name}"\nguidance_scale = 1.0\nmotion_x = {motion}\nmotion_y = {motion}'
        path = role_file(
            tmp_path, text.replace(f"motion_x = {motion}\nmotion_y = {motion}", "") if name != "zero" else text
        )
        frames = Cascade.from_pretrained(path, device="cpu")(PROMPT, num_frames, generator=seeded(), **options).frames
        assert isinstance(frames, torch.Tensor)
        return frames

    one = made("zero", 12.0, 1)
    torch.testing.assert_close(one, made(str(stable_diffusion[0]), 0.0, 1))
    moving, still = made("zero", 64.0), made("zero", 0.0)
    torch.testing.assert_close(moving[:, 0], one[:, 0], rtol=1e-3, atol=1e-4)  # the first frame is the picture
    own = made(str(stable_diffusion[0]), 0.0)
    apart = [float((video[:, 1:] - video[:, :1]).abs().mean()) for video in (still, moving, own)]
    assert 0 < apart[0] < min(apart[1], apart[2]), "still frames are more alike than moving or independent ones"


def test_text2video_zero_says_what_it_cannot_do(stable_diffusion: Any, tmp_path: Path) -> None:
    convert(stable_diffusion[0], tmp_path / "zero", "text2video-zero", num_frames=4)
    with pytest.raises(InputError, match="2 are too few, use at least 3"):
        Cascade.from_pretrained(tmp_path / "zero", device="cpu")(PROMPT, 2, num_inference_steps=2)
    scheduler = tmp_path / "zero" / "scheduler" / "scheduler_config.json"
    values = json.loads(scheduler.read_text()) | {"_class_name": "EulerDiscreteScheduler"}
    scheduler.write_text(json.dumps(values))
    index = tmp_path / "zero" / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "EulerDiscreteScheduler"))
    with pytest.raises(InputError, match="keep their variance, which a EulerDiscreteScheduler's do not"):
        Cascade.from_pretrained(tmp_path / "zero", device="cpu")(PROMPT, 2, num_inference_steps=5)
