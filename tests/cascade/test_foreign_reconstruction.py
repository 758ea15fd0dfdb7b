"""Completing videos with other people's decoders, inflated, in their real structure at tiny widths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inflate.cascade import Cascade
from inflate.cascade.reconstruction import extend_video, infill_video
from inflate.checkpoint import convert
from inflate.cli.app import main
from inflate.data.writing import write_video
from inflate.errors import InputError
from inflate.video import Video
from tests.cascade import foreign_pipelines as foreign
from tests.cascade.foreign_pipelines import role_file, seeded

FRAMES = 4


def made_to_move(path: Path) -> Cascade:
    """The cascade in a folder, its temporal layers no longer the identity, so that frames know of each other."""
    cascade = Cascade.from_pretrained(path, device="cpu", keep_loaded=True)
    stage: Any = cascade.stage("decoder")
    stage.load(torch.device("cpu"), torch.float32)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in stage.components["unet"].temporal_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return cascade


def source(height: int, width: int | None = None) -> Video:
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, height, width or height, 3), dtype=np.uint8)
    return Video(frames, 8.0)


def pixels(output: Any) -> np.ndarray:
    """uint8 (F, H, W, 3)."""
    return (output.frames[0] * 255).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module", params=["stable_diffusion", "stable_diffusion_xl"])
def prompted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An inflated folder that reads a prompt, and its cascade."""
    torch.manual_seed(0)
    top = tmp_path_factory.mktemp("sd")
    getattr(foreign, request.param)(top / "images")
    convert(top / "images", top / "video", "make-a-video", num_frames=FRAMES)
    return top / "video", made_to_move(top / "video")


def test_stable_diffusion_extends_and_fills_in_by_its_prompt(prompted: Any) -> None:
    cascade, video = prompted[1], source(16)
    known = torch.tensor([True, False, False, True])

    def infilled(prompt: str, weight: float, **options: Any) -> np.ndarray:
        options = {"num_inference_steps": 3, "generator": seeded(), "output_type": "pt"} | options
        made = pixels(infill_video(cascade, video, known, weight, prompt=prompt, **options))
        assert np.array_equal(made[[0, 3]], video.frames[[0, 3]])
        return made[1:3].astype(int)

    plain = infilled("red sun", 0.0)
    assert np.array_equal(plain, infilled("red sun", 0.0))
    # Each changes what is drawn: guidance by the known frames, another prompt, and options of guidance by it.
    for other in (
        infilled("red sun", 3.0),
        infilled("blue moon", 0.0),
        infilled("red sun", 0.0, guidance_rescale=1.0),
        infilled("red sun", 0.0, guidance_oscillate=1.0),
    ):
        assert np.abs(other - plain).max() > 2
    longer = extend_video(
        cascade, video, 0.75, 2.0, prompt="red sun", num_inference_steps=2, generator=seeded(), output_type="pt"
    )
    assert np.array_equal(pixels(longer)[:FRAMES], video.frames) and pixels(longer).shape[0] == 6


def test_a_wide_video_stays_wide(prompted: Any) -> None:
    cascade, video = prompted[1], source(16, 24)
    assert cascade.frame_shape(90, 160) == cascade.frame_shape(16, 24) == (16, 24)
    options: dict[str, Any] = {"num_inference_steps": 2, "generator": seeded(), "output_type": "pt"}
    made = pixels(infill_video(cascade, video, torch.arange(FRAMES) != 2, 1.0, prompt="red sun", **options))
    assert np.array_equal(made[[0, 1, 3]], video.frames[[0, 1, 3]]) and not np.array_equal(made[2], video.frames[2])


def test_pictures_go_into_its_space_and_back_as_its_own_pipeline_has_it(prompted: Any) -> None:
    stage: Any = prompted[1].stage("decoder")
    vae, pictures = stage.components["vae"], torch.rand(5, 3, 16, 16, generator=seeded()) * 2 - 1
    with torch.no_grad():
        latents = stage.encode(pictures)
        wanted = vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor
        torch.testing.assert_close(latents, wanted)
        torch.testing.assert_close(stage.decode(latents), vae.decode(wanted / vae.config.scaling_factor).sample)


def test_the_prompt_is_asked_for_and_refused(prompted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "in.gif", source(16).frames, 8)
    command = ["extend", str(tmp_path / "in.gif"), "--frames", "1", "--steps", "2", "-o", str(tmp_path / "out.gif")]
    command += ["--device", "cpu", "--model", str(prompted[0]), "--quiet"]
    assert main(command) == 2
    assert "say what the video shows (prompt, --prompt)" in capsys.readouterr().err.replace("\n", " ")
    assert main([*command, "--prompt", "red sun"]) == 0 and (tmp_path / "out.gif").stat().st_size > 0


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Role files of decoders that are told image embeddings: Karlo's with pixels, Kandinsky's with latents."""
    torch.manual_seed(0)
    top = tmp_path_factory.mktemp("roles")
    foreign.karlo(top / "karlo")
    foreign.kandinsky_prior(top / "prior")
    foreign.kandinsky_22(top / "kandinsky")
    found = {}
    for name in ("karlo", "kandinsky"):
        convert(top / name, top / f"{name}-video", "make-a-video", num_frames=FRAMES)
        (top / f"roles-{name}").mkdir()
        text = f'[prior]\nfrom = "{top / "prior"}"\n[decoder]\nfrom = "{top / f"{name}-video"}"\n'
        found[name] = role_file(top / f"roles-{name}", text + "num_inference_steps = 3\n")
    return found


@pytest.mark.parametrize(("name", "side"), [("karlo", 8), ("kandinsky", 64)])
def test_decoders_told_embeddings_fill_in(name: str, side: int, embedded: dict[str, Path]) -> None:
    cascade, video, known = made_to_move(embedded[name]), source(side), torch.tensor([True, True, False, False])
    options: dict[str, Any] = {"output_type": "pt"}
    made = [pixels(infill_video(cascade, video, known, weight, generator=seeded(), **options)) for weight in (0.0, 3.0)]
    for frames in made:
        assert np.array_equal(frames[:2], video.frames[:2]) and not np.array_equal(frames[2], video.frames[2])
    assert not np.array_equal(made[0], made[1])
    # Too small to have another size of about the same area; twice as wide is a size they can draw.
    assert cascade.frame_shape(90, 160) == (side, side)
    embeds = cascade.embed_images(torch.zeros(1, 3, 1, side, side))
    wide = cascade.sized(side, 2 * side)(None, FRAMES, 8, seeded(), image_embeds=embeds, until="decoder", **options)
    assert pixels(wide).shape == (FRAMES, side, 2 * side, 3)
    if name == "karlo":  # of pixels, so their range may be kept per video
        bounded = infill_video(cascade, video, known, 0.0, generator=seeded(), threshold=0.6, **options)
        assert not np.array_equal(pixels(bounded), made[0])
    with pytest.raises(InputError, match="told what a video shows by its frames alone; leave the prompt out"):
        infill_video(cascade, video, known, 0.0, prompt="red sun")
