"""Frames that begin as a picture: diffusers' img2img pictures, videos, our own decoder, and the command."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from inflate.cascade import Cascade
from inflate.checkpoint import convert
from inflate.cli.app import main
from inflate.errors import InputError
from tests.bases import families
from tests.cascade import foreign_pipelines as foreign
from tests.cascade.foreign_pipelines import assert_same, seeded
from tests.models.tiny_family import save_tiny_family, tiny_video_unet

PROMPT, SIDE = "red sun", families.SIDE
BUILDERS: dict[str, Any] = {
    "sd": (foreign.stable_diffusion, "StableDiffusionImg2ImgPipeline"),
    "sdxl": (foreign.stable_diffusion_xl, "StableDiffusionXLImg2ImgPipeline"),
    "sd3": (families.sd3, "StableDiffusion3Img2ImgPipeline"),
}


def picture(width: int = SIDE, height: int = SIDE) -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd") / "sd"
    foreign.stable_diffusion(folder)
    return folder


@pytest.mark.parametrize("name", BUILDERS)
def test_a_frame_is_the_picture_of_diffusers_img2img(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, twin = BUILDERS[name]
    torch.manual_seed(0)
    folder = tmp_path / name
    pipeline = getattr(diffusers, twin)(**build(folder).components)
    pipeline.set_progress_bar_config(disable=True)
    cascade = Cascade.from_pretrained(folder, device="cpu")
    stage: Any = cascade.stage("decoder")
    channels, height, width = stage.picture_shape()
    noise = torch.randn(1, channels, 1, height, width, generator=seeded(5))
    monkeypatch.setattr("inflate.models.decoder.frame_noise", lambda *rest: noise)
    # Ours is the mean of the encoder, diffusers' a draw from around it.
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    monkeypatch.setattr(f"{pipeline.__module__}.randn_tensor", lambda *rest, **more: noise[:, :, 0])
    options: dict[str, Any] = {"num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "np"}
    made: dict[float, Any] = {}
    for strength in (0.5, 0.7, 1.0):
        wanted = pipeline(PROMPT, image=picture(), strength=strength, **options).images
        made[strength] = cascade(PROMPT, 1, init_image=picture(), strength=strength, **options).frames
        assert_same(made[strength][0], wanted)
    assert not np.allclose(made[0.5], made[1.0], atol=1e-2)
    plain: Any = cascade(PROMPT, 1, **options).frames
    assert not np.allclose(made[0.5], plain, atol=1e-2)


def test_every_frame_of_a_video_begins_as_the_picture(stable_diffusion: Path, tmp_path: Path) -> None:
    convert(stable_diffusion, tmp_path / "video", "make-a-video", num_frames=3)
    cascade = Cascade.from_pretrained(tmp_path / "video", device="cpu", keep_loaded=True)
    options: dict[str, Any] = {"num_inference_steps": 10, "guidance_scale": 1.0, "output_type": "np"}

    def video(strength: float, frames: int = 3) -> Any:
        return cascade(PROMPT, frames, generator=seeded(0), init_image=picture(), strength=strength, **options).frames

    near, far = video(0.1), video(0.9)
    decoder: Any = cascade.stage("decoder")
    pixels = torch.from_numpy(np.array(picture())).permute(2, 0, 1)[None].float() / 127.5 - 1
    kept = ((decoder.to_pixels(decoder.encode(pixels)[:, :, None])[0, :, 0] + 1) / 2).permute(1, 2, 0).numpy()
    distances = [np.abs(made[0] - kept).mean(axis=(1, 2, 3)) for made in (near, far)]
    assert (distances[0] < distances[1]).all(), "each of the frames is nearer to it the less is left to sample"
    # more frames than a window, as a whole and by chunks
    long = video(0.5, 7)
    chunks = cascade.stream(
        PROMPT, 7, generator=seeded(0), init_image=picture(), strength=0.5, num_inference_steps=10, guidance_scale=1.0
    ).chunks
    streamed = (torch.cat(list(chunks), dim=1).permute(1, 2, 3, 0).numpy() + 1) / 2
    np.testing.assert_allclose(streamed, long[0], atol=1e-4)


def test_our_own_decoder_begins_as_a_picture_of_any_shape(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cascade = Cascade.from_pretrained(save_tiny_family(tmp_path / "family", tiny_video_unet()), device="cpu")

    def frames(image: Image.Image | None) -> Any:
        more = {} if image is None else {"init_image": image, "strength": 0.5}
        options: dict[str, Any] = {"num_inference_steps": {"decoder": 6}, "output_type": "np", **more}
        return cascade("sun", 4, generator=seeded(0), **options).frames

    side = cascade.frame_size()
    assert side is not None
    square, wide = picture(side, side), Image.new("RGB", (side + 8, side), (9, 9, 9))
    wide.paste(square, (4, 0))
    assert np.array_equal(frames(square), frames(wide)), "the centre is cut out"
    assert not np.allclose(frames(square), frames(None), atol=1e-2)


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.5, float("nan")])
def test_strengths_that_cannot_be(strength: float, stable_diffusion: Path) -> None:
    cascade = Cascade.from_pretrained(stable_diffusion, device="cpu")
    with pytest.raises(InputError, match=r"strength is .*; it must be above 0"):
        cascade(PROMPT, 1, init_image=picture(), strength=strength)


def test_too_few_steps_and_text2video_zero(stable_diffusion: Path, tmp_path: Path) -> None:
    cascade = Cascade.from_pretrained(stable_diffusion, device="cpu")
    with pytest.raises(InputError, match=r"strength of 0\.2 leaves none of 4 steps"):
        cascade(PROMPT, 1, init_image=picture(), strength=0.2, num_inference_steps=4)
    convert(stable_diffusion, tmp_path / "zero", "text2video-zero", num_frames=3)
    with pytest.raises(InputError, match="text2video-zero draws its first frame from noise"):
        Cascade.from_pretrained(tmp_path / "zero", device="cpu")(PROMPT, 3, init_image=picture(), num_inference_steps=4)


def test_generate_turns_a_photo_upright_and_tells_what_it_used(
    stable_diffusion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upright = picture(24, 40)
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photo.png", exif=exif)
    usual = ["generate", PROMPT, "--model", str(stable_diffusion), "--frames", "1", "--steps", "4", "--device", "cpu"]
    usual += ["--quiet", "--no-sheet", "--save-settings"]
    for name in ("upright", "photo"):
        out = ["-o", str(tmp_path / f"{name}.gif"), "--init-image", str(tmp_path / f"{name}.png"), "--strength", "0.5"]
        assert main([*usual, *out, "--height", "32", "--width", "16"]) == 0
    assert (tmp_path / "upright.gif").read_bytes() == (tmp_path / "photo.gif").read_bytes()
    with Image.open(tmp_path / "photo.gif") as made:
        assert made.size == (16, 32)
    said = json.loads((tmp_path / "photo.json").read_text())
    assert (said["init_image"], said["strength"]) == (str(tmp_path / "photo.png"), 0.5)
    for more, words in (
        (["--strength", "0.5"], "--strength goes with --init-image"),
        (["--init-image", str(tmp_path / "photo.png"), "--strength", "0"], "strength is 0.0; it must be above 0"),
        (["--init-image", str(tmp_path / "none.png")], "There is no picture"),
    ):
        capsys.readouterr()
        assert main([*usual, "-o", str(tmp_path / "no.gif"), *more]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "no.gif").exists()
