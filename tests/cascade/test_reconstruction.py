"""Completing a video with the decoder of the tiny family: known frames stay, and what is wrong is told."""

from typing import Any

import numpy as np
import pytest
import torch

from inflate.cancelling import CancelledError
from inflate.cascade.constrained import enlarge_video, raise_frame_rate
from inflate.cascade.reconstruction import extend_video, frame_numbers, infill_video
from inflate.errors import InputError
from inflate.video import Video
from tests.models.tiny_family import tiny_cascade, tiny_unet

SIZE = 16
VIDEO = Video(np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8), 8.0)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def pixels(frames: torch.Tensor) -> np.ndarray:
    """(1, F, 3, H, W) in [0, 1] to uint8 (F, H, W, 3)."""
    return (frames[0] * 255).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("weight", "guide"), [(0.0, "errors"), (1.0, "errors"), (2.0, "gradient")])
def test_a_video_is_extended_window_by_window_and_its_own_frames_stay(weight: float, guide: str) -> None:
    options: dict[str, Any] = {"guide": guide, "output_type": "pt"}
    made = extend_video(tiny_cascade(), VIDEO, 1.0, weight, generator=seeded(), **options)
    assert isinstance(made.frames, torch.Tensor) and made.frames.shape == (1, 8, 3, SIZE, SIZE) and made.fps == 8
    assert np.array_equal(pixels(made.frames)[:4], VIDEO.frames)
    again = extend_video(tiny_cascade(), VIDEO, 0.75, weight, True, generator=seeded(), **options)
    assert isinstance(again.frames, torch.Tensor)
    torch.testing.assert_close(again.frames, made.frames[:, :6])


def test_missing_frames_are_made_and_the_others_stay() -> None:
    known = torch.tensor([True, False, False, True])
    made = [
        infill_video(tiny_cascade(), VIDEO, known, weight, guide=guide, generator=seeded(), output_type="pt").frames
        for weight, guide in ((0.0, "errors"), (1.0, "errors"), (2.0, "gradient"), (0.0, "gradient"))
    ]
    for frames in made:
        assert isinstance(frames, torch.Tensor)
        assert np.array_equal(pixels(frames)[[0, 3]], VIDEO.frames[[0, 3]])
        assert not np.array_equal(pixels(frames)[1], VIDEO.frames[1])
    alone, spread, gradient, same = (torch.as_tensor(frames) for frames in made)
    assert torch.equal(alone, same) and not torch.equal(alone, gradient)
    assert not torch.equal(alone, spread) and not torch.equal(spread, gradient)


@pytest.mark.parametrize("what", ["extend", "infill", "between", "larger"])
def test_its_end_is_told_and_may_cancel(what: str) -> None:
    cascade, told = tiny_cascade(), []

    def make(**options: Any) -> Any:
        if what == "infill":
            return infill_video(cascade, VIDEO, torch.tensor([True, False, False, True]), 1.0, **options)
        if what == "between":
            return raise_frame_rate(cascade, VIDEO, 2, 1.0, **options)
        if what == "larger":
            return enlarge_video(cascade, Video(VIDEO.frames[:, ::2, ::2], 8.0), 1.0, **options)
        return extend_video(cascade, VIDEO, 1.0, 1.0, **options)

    def on_end(cascade: Any, stage: str, state: Any) -> bool:
        told.append((stage, state.frames.shape[2], state.fps))
        return len(told) < 2

    out = make(callback_on_stage_end=on_end, output_type="pt", until="decoder")
    assert told == [("decoder", out.frames.shape[1], out.fps)]
    with pytest.raises(CancelledError, match="cancelled after decoder"):
        make(callback_on_stage_end=on_end)
    with pytest.raises(InputError, match=r"until='upscaler'.*the decoder's work alone; leave until out"):
        make(until="upscaler")


def test_what_is_wrong_is_told() -> None:
    cascade = tiny_cascade()
    with pytest.raises(InputError, match=r"lasts 0\.50 s already"):
        extend_video(cascade, VIDEO, 0.5, 1.0)
    with pytest.raises(InputError, match="it must be 0 or more"):
        extend_video(cascade, VIDEO, 1.0, -1.0)
    with pytest.raises(InputError, match=r"no guidance 'gradiant'.*use errors or gradient"):
        extend_video(cascade, VIDEO, 1.0, 1.0, guide="gradiant")
    with pytest.raises(InputError, match="nothing to fill in"):
        infill_video(cascade, VIDEO, torch.ones(4, dtype=torch.bool), 1.0)
    with pytest.raises(InputError, match="no temporal layers"):
        extend_video(tiny_cascade(tiny_unet()), VIDEO, 1.0, 1.0)
    assert frame_numbers("1-2, 5", 6, "--missing") == [1, 2, 5]
    for text, message in (
        ("x", "with commas between"),
        ("3-1", "runs backwards"),
        ("0-5", "all 6 frames"),
        ("2-9", "from 0 to 5"),
    ):
        with pytest.raises(InputError, match=message):
            frame_numbers(text, 6, "--missing")
