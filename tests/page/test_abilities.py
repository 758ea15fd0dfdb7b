"""What the page offers is what the model can do; the rest has a reason."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from inflate.cascade import Cascade
from inflate.cli.app import main
from inflate.data import decode_video
from inflate.errors import InputError
from inflate.page import wishes
from inflate.page.abilities import APPLICATIONS, Abilities
from inflate.page.estimate import Paces
from inflate.page.jobs import Job, Result
from inflate.page.making import work_for
from inflate.page.wishes import Settings
from tests.cascade import foreign_pipelines as foreign
from tests.cascade.test_applications import Doubling, RecordingInterpolation
from tests.models.tiny_family import tiny_cascade, tiny_unet

PLAIN = Settings(6.0, 4, 1, 1.5, 5, negative_prompt="blurred")


def chain(*more: Any, unet: Any = None) -> Cascade:
    return Cascade((*tiny_cascade(unet).stages, *more), device="cpu")


def test_a_whole_chain_can_do_everything() -> None:
    found = Abilities.of(chain(RecordingInterpolation(), Doubling()))
    assert not found.why_not and found.excuses() == "" and [name for _, name in found.choices()] == list(APPLICATIONS)
    assert found.methods == {
        "extend": ("interpolation", "reconstruction"),
        "faster": ("interpolation", "reconstruction"),
        "upscale": ("super-resolution", "reconstruction"),
    }
    assert found.told == "image" and found.interpolates and not found.completes_by_prompt


def test_what_is_missing_is_named() -> None:
    found = Abilities.of(tiny_cascade())
    assert set(found.why_not) == {"animate", "between"} and not found.interpolates
    assert found.excuses() == "This model cannot do: Animate, Between two (it has no frame interpolation)."
    assert found.methods["extend"] == ("reconstruction",) and found.methods["upscale"] == ("reconstruction",)
    frames = Abilities.of(tiny_cascade(tiny_unet()))
    assert frames.why_not["infill"] == "its decoder has no temporal layers" and frames.methods["extend"] == ()
    larger = Abilities.of(Cascade([Doubling()], device="cpu"))
    assert [name for _, name in larger.choices()] == ["upscale"] and larger.methods["upscale"] == ("super-resolution",)
    assert larger.why_not["generate"] == larger.why_not["vary"] == "it has no decoder, which makes frames"
    blind = Abilities.of(Cascade([tiny_cascade().stages[1], RecordingInterpolation()], device="cpu"))
    assert blind.why_not["generate"] == "it has no prior, which reads prompts"
    assert blind.why_not["animate"] == blind.why_not["vary"] == "it has no CLIP model, which looks at pictures"
    assert set(blind.why_not) == set(APPLICATIONS)


class Told(Doubling):
    """A decoder that is told a text, or nothing."""

    name: ClassVar[str] = "decoder"
    needs_embeds = False

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.conditioner_class = SimpleNamespace(reads=reads)
        self.told_nothing = reads == "nothing"

    def has_temporal_layers(self) -> bool:
        return True

    def reads_prompt(self) -> bool:
        return self.conditioner_class.reads == "text"


@pytest.mark.parametrize("reads", ["text", "nothing"])
def test_prompts_are_asked_of_those_that_read_them(reads: str) -> None:
    cascade = Cascade([Told(reads)], device="cpu")
    found = Abilities.of(cascade)
    assert found.told == reads and found.completes_by_prompt == (reads == "text")
    assert "generate" not in found.why_not and "infill" not in found.why_not and "vary" in found.why_not
    request = wishes.generate(cascade, "m", "sun", PLAIN).request
    assert request.inputs == (("sun",) if reads == "text" else ())
    assert request.options.get("negative_prompt") == ("blurred" if reads == "text" else None)


def test_a_prior_without_an_image_encoder_says_so() -> None:
    cascade = chain(RecordingInterpolation())
    cascade.stages[0].components.pop("text_encoder")  # pyright: ignore[reportAttributeAccessIssue]  # a component stage
    assert Abilities.of(cascade).why_not["animate"] == "its prior has no image encoder"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda cascade: wishes.generate(cascade, "m", " ", PLAIN), "The prompt is empty"),
        (lambda cascade: wishes.animate(cascade, "m", None, PLAIN), "There is no picture: upload one first"),
        (lambda cascade: wishes.vary(cascade, "m", None, PLAIN), "There is no video: upload one first"),
        (lambda cascade: wishes.vary(cascade, "m", "/x/gone.mp4", PLAIN), r"^gone.mp4 is no longer kept here: upload"),
        (lambda cascade: wishes.infill(cascade, "m", __file__, " ", "", PLAIN), "Say which frames are to be made"),
        (lambda cascade: Settings.read(8, 4, 1, 2, False, 2**31, 1, ""), "The seed must be a whole number from 0"),
    ],
)
def test_what_is_wrong_is_said_before_it_waits(make: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make(tiny_cascade())


def test_a_negative_prompt_is_for_one_video_and_in_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    foreign.stable_diffusion(tmp_path / "sd")
    cascade = Cascade.from_pretrained("sd", device="cpu")
    assert set(Abilities.of(cascade).why_not) == set(APPLICATIONS) - {"generate"}

    def made(settings: Settings) -> Result:
        wish = wishes.generate(cascade, "sd", "red sun", settings)
        job = Job("kind", "x", work_for(wish, cascade, tmp_path), Paces())
        job.run()
        assert job.result is not None, job.wrong
        return job.result

    plain = replace(PLAIN, num_frames=2, negative_prompt="")
    before, away, after = (made(one) for one in (plain, replace(plain, negative_prompt="blue bus"), plain))
    before_frames, away_frames, after_frames = (decode_video(one.written.gif).frames for one in (before, away, after))
    assert np.array_equal(before_frames, after_frames) and not np.array_equal(before_frames, away_frames)
    words = shlex.split(json.loads(Path(away.written.settings).read_text())["command_line"])[1:]
    assert words[words.index("--negative-prompt") + 1] == "blue bus"
    words[words.index("-o") + 1] = "again.gif"
    assert main([*words, "--quiet", "--device", "cpu", "--no-sheet"]) == 0
    assert np.array_equal(decode_video("again.gif").frames, away_frames)
