"""Inflated folders of families without a prior make videos, from Python and from the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inflate.bases import open_base
from inflate.cascade import Cascade
from inflate.checkpoint import convert
from inflate.cli.app import main
from inflate.data import decode_video
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from tests.bases.families import SIDE
from tests.bases.test_pipelines import SIDES

WORDS = {
    "pixart": ["red sun"],
    "sana": ["red sun"],
    "sd3": ["red sun"],
    "flux": ["red sun"],
    "dit": ["goldfish"],
    "unconditional": [],
}


@pytest.mark.parametrize("family", WORDS)
def test_an_inflated_folder_makes_videos(
    family: str, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheme = "lean" if family == "unconditional" else "latte"
    convert(folders / family, tmp_path / "video", scheme, num_frames=3)
    assert open_base(tmp_path / "video").network.temporal_file.is_file()
    options = ["--model", str(tmp_path / "video"), "--frames", "3", "--steps", "2", "--device", "cpu", "--quiet"]
    assert main(["generate", *WORDS[family], "-o", str(tmp_path / "out.gif"), *options]) == 0
    assert (tmp_path / "out.gif").stat().st_size > 0 and (tmp_path / "out.sheet.png").is_file()

    cascade = Cascade.from_pretrained(tmp_path / "video", device="cpu", keep_loaded=True)
    prompt = WORDS[family][0] if WORDS[family] else None
    settings: dict[str, Any] = {"num_inference_steps": 2, "output_type": "pt"}
    side = SIDES.get(family, SIDE)

    def videos(which: Cascade, frames: int, seed: int) -> torch.Tensor:
        made = which(prompt, frames, generator=torch.Generator().manual_seed(seed), **settings).frames
        assert isinstance(made, torch.Tensor) and made.shape == (1, frames, 3, side, side)
        assert bool(made.isfinite().all())
        return made

    made = videos(cascade, 3, 0)
    assert torch.equal(made, videos(cascade, 3, 0)) and not torch.allclose(made, videos(cascade, 3, 1), atol=1e-2)
    stage: Any = cascade.stages[0]
    assert isinstance(stage.components["unet"], InflatedModel)
    # A longer video goes through in windows, and a saved cascade is the same one.
    cascade.save_pretrained(tmp_path / "saved")
    assert open_base(tmp_path / "saved").family == open_base(folders / family).family
    again = Cascade.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(videos(cascade, 5, 0), videos(again, 5, 0))

    wrong = ["a dog"] if family == "unconditional" else []
    assert main(["generate", *wrong, "-o", str(tmp_path / "other.gif"), *options]) == 2
    reason = "This model is told nothing" if family == "unconditional" else "Say what to show"
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {reason}")


def test_another_size_than_the_networks_own(folders: Path, tmp_path: Path) -> None:
    text = f'[decoder]\nfrom = "{folders / "pixart-sigma"}"\nheight = 24\nwidth = 16\nnum_inference_steps = 2\n'
    (tmp_path / "roles.toml").write_text(text)
    frames = Cascade.from_pretrained(tmp_path / "roles.toml", device="cpu")("red sun", 2, output_type="pt").frames
    assert isinstance(frames, torch.Tensor) and frames.shape == (1, 2, 3, 24, 16)
    (tmp_path / "roles.toml").write_text(text.replace("24", "25"))
    with pytest.raises(InputError, match="height and width 4 divides, not 25 x 16"):
        Cascade.from_pretrained(tmp_path / "roles.toml", device="cpu")("red sun", 2)
    (tmp_path / "roles.toml").write_text(text.replace("height = 24\n", ""))
    with pytest.raises(InputError, match="height and width must both be given"):
        Cascade.from_pretrained(tmp_path / "roles.toml", device="cpu")


def test_what_a_family_cannot_be_asked(folders: Path) -> None:
    flux = Cascade.from_pretrained(folders / "flux", device="cpu")
    with pytest.raises(InputError, match="FLUX has its guidance in its weights"):
        flux("red sun", 1, num_inference_steps=1, guidance_rescale=0.5)
    plain = Cascade.from_pretrained(folders / "unconditional", device="cpu")
    with pytest.raises(InputError, match="nothing to guide by; leave guidance_scale out instead of 3"):
        plain(None, 1, num_inference_steps=1, guidance_scale=3.0)
    with pytest.raises(InputError, match="told nothing of what to show, so a prompt would change nothing"):
        plain("a dog", 1)
    two = plain(None, 1, generator=[torch.Generator(), torch.Generator()], num_inference_steps=1, output_type="pt")
    assert isinstance(two.frames, torch.Tensor) and len(two.frames) == 2
    dit = Cascade.from_pretrained(folders / "dit", device="cpu")
    with pytest.raises(InputError, match=r"none is called 'golfish' \(did you mean 'goldfish'\?\)"):
        dit("golfish", 1, num_inference_steps=1)
    with pytest.raises(InputError, match="There is no class 1000; this network knows those from 0 to 999"):
        dit("1000", 1, num_inference_steps=1)
    with pytest.raises(InputError, match="FLUX makes frames from a prompt, and there is none"):
        flux(image_embeds=torch.zeros(1, 16), num_frames=1)


def test_size_and_negative_prompt_on_the_command_line(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(folders / "stable-diffusion", tmp_path / "video", "lean", num_frames=2)
    usual = ["--steps", "2", "--guidance-scale", "4", "--device", "cpu", "--no-sheet", "--save-settings", "--quiet"]

    def made(name: str, *more: str) -> np.ndarray:
        out = tmp_path / f"{name}.gif"
        assert main(["generate", "red sun", "--model", str(tmp_path / "video"), "-o", str(out), *usual, *more]) == 0
        return decode_video(out).frames

    plain, away = made("plain"), made("away", "--negative-prompt", "blue bus")
    assert plain.shape == away.shape and not np.array_equal(plain, away)
    wide = made("wide", "--height", "16", "--width", "48")
    assert wide.shape[1:3] == (16, 48)
    assert made("taller", "--height", "48").shape[1:3] == (48, plain.shape[2])
    settings = json.loads((tmp_path / "wide.json").read_text())
    assert (settings["height"], settings["width"]) == (16, 48)
    # The same as a role file says it.
    text = f'[decoder]\nfrom = "{tmp_path / "video"}"\nnegative_prompt = "blue bus"\n'
    (tmp_path / "roles.toml").write_text(text)
    out = tmp_path / "roles.gif"
    assert main(["generate", "red sun", "--model", str(tmp_path / "roles.toml"), "-o", str(out), *usual]) == 0
    assert np.array_equal(decode_video(out).frames, away)
    for more, words in (
        (["--model", str(tmp_path / "video"), "--height", "17"], "divides, not 17 x"),
        (["--model", "bundled:emoji", "--height", "64"], "--height and --width are for decoders that draw any size"),
        (["--model", "bundled:emoji", "--negative-prompt", "blue"], "--negative-prompt is for models that are told a"),
    ):
        capsys.readouterr()
        assert main(["generate", "red sun", "-o", str(tmp_path / "no.gif"), *usual, *more]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "no.gif").exists()
