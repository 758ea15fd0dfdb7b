"""More frames and pixels by the decoder of the tiny family: what is known stays, and guidance brings the rest to it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inflate.cascade import Cascade
from inflate.cascade.constrained import enlarge_video, raise_frame_rate
from inflate.cli.app import main
from inflate.data.writing import write_video
from inflate.diffusion.reconstruction import down
from inflate.errors import InputError
from inflate.video import Video
from tests.models.tiny_family import tiny_cascade

SIZE = 16
VIDEO = Video(np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8), 4.0)
LOW = Video(np.random.default_rng(1).integers(64, 192, (6, 4, 4, 3), dtype=np.uint8), 8.0)


def made(output: Any) -> torch.Tensor:
    """(3, F, H, W) in [0, 1]."""
    return output.frames[0].transpose(0, 1)


def options(seed: int = 3) -> dict[str, Any]:
    return {"generator": torch.Generator().manual_seed(seed), "output_type": "pt", "num_inference_steps": 4}


def test_new_frames_lie_between_the_known_ones_which_stay() -> None:
    # A window of 4 frames holds one gap of 3, or three of 1: windows of the second kind share frames.
    for skip in (3, 2):
        plain, guided = (raise_frame_rate(tiny_cascade(), VIDEO, skip, weight, **options()) for weight in (0.0, 2.0))
        assert plain.fps == guided.fps == 4 * skip and made(plain).shape == (3, 3 * skip + 1, SIZE, SIZE)
        for output in (plain, guided):
            kept = (made(output)[:, ::skip] * 255).round().byte().permute(1, 2, 3, 0).numpy()
            assert np.array_equal(kept, VIDEO.frames)
        assert not torch.equal(made(plain)[:, 1], made(guided)[:, 1])
        assert not torch.equal(made(plain)[:, 1], made(plain)[:, 0])


def test_a_larger_video_agrees_with_the_small_one_when_guided() -> None:
    low = torch.from_numpy(LOW.frames).permute(3, 0, 1, 2)[None] / 255
    errors = []
    for weight in (0.0, 2.0):
        output = enlarge_video(tiny_cascade(), LOW, weight, **options())
        assert made(output).shape == (3, 6, SIZE, SIZE) and output.fps == 8
        errors.append(float((down(made(output)[None], 4, 4) - low).square().mean()))
    assert errors[1] < 0.9 * errors[0]
    again = enlarge_video(tiny_cascade(), LOW, 2.0, True, **options())
    torch.testing.assert_close(made(again), made(output))


def test_what_is_wrong_is_told() -> None:
    one = Video(VIDEO.frames[:1], 4.0)
    for video, skip, message in (
        (VIDEO, 1, "need two of these and frame_skip of 2 or more; got 4 and 1"),
        (one, 2, "got 1 and 2"),
        (VIDEO, 4, "the model sees 4 frames at once; use at most 3"),
        (Video(VIDEO.frames, 20.0), 2, "fps is 40; this model was trained for 1 to 30"),
    ):
        with pytest.raises(InputError, match=message):
            raise_frame_rate(tiny_cascade(), video, skip, 1.0)
    with pytest.raises(InputError, match="16 x 16 pixels and the decoder makes 16 x 16; this enlarges smaller"):
        enlarge_video(tiny_cascade(), VIDEO, 1.0)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Cascade, "from_pretrained", classmethod(lambda cls, *rest, **more: tiny_cascade()))
    for name, video in (("in.gif", VIDEO), ("low.gif", LOW)):
        write_video(tmp_path / name, video.frames, video.fps)
    source, low, out = (str(tmp_path / name) for name in ("in.gif", "low.gif", "out.gif"))
    more = ["-o", out, "--method", "reconstruction", "--steps", "2", "--weight", "1", "--quiet", "--force"]
    assert main(["interpolate", source, "--frame-skip", "3", *more]) == 0
    assert main(["upscale", low, *more]) == 0
    for arguments, message in (
        (["interpolate", source, source, *more], "fills in a video, not two pictures"),
        (["interpolate", source, "-o", out, "--force", "--method", "blend"], "use interpolation or reconstruction"),
        (["upscale", low, "-o", out, "--force", "--method", "reconstructon"], "did you mean 'reconstruction'?"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
