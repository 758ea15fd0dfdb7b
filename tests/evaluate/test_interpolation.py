"""Frame interpolation measured against the truth: references on a moving square, closed forms, and what is refused."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inflate.data.minterpolate import minterpolate
from inflate.errors import InputError
from inflate.evaluate.interpolation import (
    BLEND,
    FLOW,
    MINTERPOLATE,
    REFERENCES,
    REPEAT,
    by_minterpolate,
    known_pair,
    linear_blend,
    markdown_table,
    measure_interpolation,
    repeat,
)

FPS, SEED = 24.0, 0
EVERY_FIFTH = torch.arange(16) % 5 == 0


def moving_square(num_frames: int = 16, size: int = 64, speed: int = 2) -> Tensor:
    """A red square that moves to the right over white, (1, 3, F, S, S)."""
    clip = torch.ones(1, 3, num_frames, size, size)
    for index in range(num_frames):
        left = 4 + speed * index
        clip[0, :, index, 24:40, left : left + 16] = torch.tensor([200 / 255, 30 / 255, 60 / 255])[:, None, None]
    return clip


def hidden(clip: Tensor, known: Tensor) -> Tensor:
    return torch.where(known[None, None, :, None, None], clip, 0)


@pytest.fixture(scope="module")
def report() -> Any:
    def perfect(clip: Tensor, known: Tensor, fps: float, seed: int) -> Tensor:
        return moving_square()

    return measure_interpolation({"perfect": perfect}, [moving_square(), moving_square()])


@pytest.mark.reference
def test_methods_that_follow_motion_beat_blending_and_repeating_on_a_moving_square(report: Any) -> None:
    psnr = {row.name: row.psnr for row in report.between}
    assert psnr[REPEAT] < psnr[BLEND] < psnr[MINTERPOLATE] < psnr[FLOW] < psnr["perfect"] == 60
    assert report.best_reference.name == FLOW
    assert report.gain("perfect") == pytest.approx(60 - psnr[FLOW])


def test_the_report_is_plain_data_and_a_table(report: Any) -> None:
    assert (report.clips, report.num_frames, report.skip, report.tail, report.size) == (2, 16, 5, 4, 64)
    assert [row.name for row in report.after] == [REPEAT, "perfect"] and report.gain_after("perfect") > 20
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["gain"] == {"perfect": pytest.approx(report.gain("perfect"))} and list(plain["gain_after"]) == [
        "perfect"
    ]
    table = markdown_table(report).splitlines()
    assert len(table) == 2 + 5 and f"over {FLOW}" in table[0] and "60.00" in table[-1]
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.reference
@pytest.mark.parametrize("method", REFERENCES.values())
def test_references_leave_a_still_clip_as_it_is(method: Any) -> None:
    clip = moving_square(speed=0)
    made = method(hidden(clip, EVERY_FIFTH), EVERY_FIFTH, FPS, SEED)
    torch.testing.assert_close(made, clip, atol=3 / 255, rtol=0)
    assert torch.equal((made * 255).round()[:, :, ::5], (clip * 255).round()[:, :, ::5])


@pytest.mark.reference
def test_blend_and_repeat_are_what_they_say() -> None:
    clip, known = torch.rand(1, 3, 8, 4, 4), torch.tensor([0, 1, 0, 0, 0, 1, 0, 0], dtype=torch.bool)
    blended, repeated = (method(hidden(clip, known), known, FPS, SEED) for method in (linear_blend, repeat))
    torch.testing.assert_close(blended[:, :, 4], 0.25 * clip[:, :, 1] + 0.75 * clip[:, :, 5])
    assert torch.equal(blended[:, :, 0], clip[:, :, 1]) and torch.equal(blended[:, :, 7], clip[:, :, 5])
    assert torch.equal(repeated[:, :, 4], clip[:, :, 1]) and torch.equal(repeated[:, :, 0], clip[:, :, 1])
    assert known_pair(known, 2) == (1, 5, 0.25) and known_pair(known, 5) == (5, 5, 0.0)


@pytest.mark.reference
def test_psnr_is_that_of_the_unknown_frames_as_eight_bit_pixels() -> None:
    truth = torch.full((1, 3, 6, 32, 32), 100 / 255)

    def off(clip: Tensor, known: Tensor, fps: float, seed: int) -> Tensor:
        made = truth + 10.4 / 255
        made[:, :, known] = 0
        return made

    report = measure_interpolation({"off": off}, [truth], tail=2)
    assert report.row("off").psnr == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert report.row(REPEAT).psnr == 60 == report.after[0].psnr


def test_seeds_and_rates_reach_the_method() -> None:
    seen: list[tuple[float, int, int]] = []

    def note(clip: Tensor, known: Tensor, fps: float, seed: int) -> Tensor:
        assert not clip[:, :, ~known].any()
        seen.append((fps, seed, int(known.sum())))
        return clip

    measure_interpolation({"note": note}, [moving_square(), moving_square()], seed=5)
    assert seen == [(24.0, 5, 4), (24.0, 5, 12), (24.0, 6, 4), (24.0, 6, 12)]


@pytest.mark.parametrize("skip", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_minterpolate_gives_every_frame_and_keeps_the_known_ones(count: int, skip: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    made = minterpolate(frames, skip)
    assert made.shape == ((count - 1) * skip + 1, 32, 32, 3) and made.dtype == np.uint8
    assert np.array_equal(made[::skip], frames)


def test_what_cannot_be_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = moving_square()
    with pytest.raises(InputError, match="uint8 frames"):
        minterpolate(np.zeros((2, 4, 4)), 2)
    with pytest.raises(InputError, match="1 or more"):
        minterpolate(np.zeros((2, 4, 4, 3), np.uint8), 0)
    with pytest.raises(InputError, match="even steps"):
        by_minterpolate(clip, torch.arange(16) < 4, FPS, SEED)
    with pytest.raises(InputError, match="no frame is known"):
        linear_blend(clip, torch.zeros(16, dtype=torch.bool), FPS, SEED)
    with pytest.raises(InputError, match="may not be called 'repeat'"):
        measure_interpolation({REPEAT: repeat}, [clip])
    with pytest.raises(InputError, match="no clip to measure"):
        measure_interpolation({}, [])
    with pytest.raises(InputError, match="clips of 16 frames do not begin and end"):
        measure_interpolation({}, [clip], skip=4)
    with pytest.raises(InputError, match="leave at least one known"):
        measure_interpolation({}, [clip], tail=16)
    with pytest.raises(InputError, match="gave a clip of shape"):
        measure_interpolation({"short": lambda clip, known, fps, seed: clip[:, :, 1:]}, [clip])
