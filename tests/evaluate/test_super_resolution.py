import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from inflate.data import build_frame_cache
from inflate.errors import InputError
from inflate.evaluate.super_resolution import (
    bicubic,
    evaluate_super_resolution,
    frame_psnr,
    markdown_table,
    measure_super_resolution,
    shrink_clip,
)
from inflate.evaluate.things import find_things

EMOJI = Path(__file__).parents[1] / "data/emoji"


def clip(seed: int = 0, frames: int = 3, size: int = 16) -> torch.Tensor:
    """Smooth shapes that move a little."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.rand(1, 3, 1, size // 4, size // 4, generator=generator)
    smooth = 0.9 * shapes + 0.05 * torch.rand(1, 3, frames, size // 4, size // 4, generator=generator)
    return functional.interpolate(smooth, (frames, size, size), mode="trilinear")


def means(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.mean(dim=(2, 3))


def test_psnr_by_hand() -> None:
    true = torch.zeros(1, 3, 3, 4, 4)
    made = torch.stack([torch.full((3, 4, 4), value) for value in (0.1, 0.01, 0.0)], dim=1)[None]
    assert frame_psnr(made, true).tolist() == pytest.approx([20.0, 40.0, 60.0], abs=1e-5)
    assert frame_psnr(made, true, cap=30).tolist() == pytest.approx([20.0, 30.0, 30.0], abs=1e-5)
    with pytest.raises(InputError, match="two clips of one shape"):
        frame_psnr(made, true[..., :2])


@pytest.mark.reference
def test_shrinking_and_bicubic_are_those_of_torch() -> None:
    given = clip()
    low = shrink_clip(given, 4)
    area = functional.interpolate(given[:, :, 1], (4, 4), mode="area")
    torch.testing.assert_close(low[:, :, 1], area)
    large = functional.interpolate(low[:, :, 2], (16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(bicubic(low, 4)[:, :, 2], large.clamp(0, 1))
    with pytest.raises(InputError, match="cannot be shrunk 3 times"):
        shrink_clip(given, 3)


def test_the_true_clip_is_perfect_and_noise_flickers() -> None:
    truths = [clip(seed) for seed in range(3)]
    queue = iter(truths)

    def perfect(low: torch.Tensor, fps: float, seed: int) -> torch.Tensor:
        return next(queue)

    def noisy(low: torch.Tensor, fps: float, seed: int) -> torch.Tensor:
        large = bicubic(low, 4)
        return large + 0.1 * torch.randn(large.shape, generator=torch.Generator().manual_seed(seed))

    def still(low: torch.Tensor, fps: float, seed: int) -> torch.Tensor:
        return bicubic(low, 4)[:, :, :1].expand(-1, -1, low.shape[2], -1, -1)

    seen: list[int] = []
    report = measure_super_resolution(
        {"perfect": perfect, "noisy": noisy, "still": still}, truths, 4, means, on_clip=lambda: seen.append(1)
    )
    assert [row.name for row in report.rows] == ["bicubic", "perfect", "noisy", "still"] and len(seen) == 3
    true = report.row("perfect")
    assert (true.psnr, true.feature_distance, true.flicker) == (60.0, 0.0, 0.0)
    assert true.motion == report.true_motion > 0
    assert report.row("noisy").flicker > 0.05 > report.row("bicubic").flicker
    assert report.row("still").motion == 0 and report.row("still").flicker == -report.true_motion
    assert report.psnr_over_bicubic("noisy") < 0 < report.psnr_over_bicubic("perfect")
    expected = torch.stack([frame_psnr(bicubic(shrink_clip(one, 4), 4), one).mean() for one in truths]).mean()
    assert report.row("bicubic").psnr == pytest.approx(expected.item())
    assert report.clips == 3 and report.num_frames == 3 and report.size == 16
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["psnr_over_bicubic"]["bicubic"] == 0 and len(plain["rows"]) == 4
    table = markdown_table(report).splitlines()
    assert len(table) == 7 and table[3].startswith("| perfect | 60.00 |")


def test_motion_where_nothing_moves_is_that_of_still_pixels_alone() -> None:
    truth = torch.full((1, 3, 3, 8, 8), 0.4)
    truth[:, :, 1:, :, 4:] = 0.6  # the right half changes once, from the first frame to the second

    def flickering(low: torch.Tensor, fps: float, seed: int) -> torch.Tensor:
        made = truth.clone()
        made[:, :, 2] += 0.1
        return made

    report = measure_super_resolution({"flickering": flickering}, [truth], 2, means)
    # Still: half of the first step, where it adds nothing, and all of the second, where it adds 0.1.
    assert report.row("flickering").still_motion == pytest.approx(0.1 * 2 / 3)
    moving = torch.stack([torch.full((1, 3, 8, 8), level) for level in (0.1, 0.5)], dim=2)
    assert measure_super_resolution({}, [moving], 2, means).row("bicubic").still_motion is None
    assert "| 0.06667 |" in markdown_table(report)


def test_what_upscalers_are_given() -> None:
    given: list[tuple[tuple[int, ...], float, int, bool]] = []

    def upscaler(low: torch.Tensor, fps: float, seed: int) -> torch.Tensor:
        given.append((tuple(low.shape), fps, seed, bool((low == 0.5).all())))
        return bicubic(low, 2)

    def grey(low: torch.Tensor) -> torch.Tensor:
        return torch.full_like(low, 0.5)

    measure_super_resolution({"one": upscaler}, [clip(0), clip(1)], 2, means, 12.0, 40, degrade=grey)
    assert given == [((1, 3, 3, 8, 8), 12.0, 40, True), ((1, 3, 3, 8, 8), 12.0, 41, True)]


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="no clip to measure super-resolution on"):
        measure_super_resolution({}, [], 4, means)
    with pytest.raises(InputError, match="may not be called 'bicubic'"):
        measure_super_resolution({"bicubic": lambda low, fps, seed: low}, [clip()], 4, means)


def test_real_clips_of_a_split(tmp_path: Path) -> None:
    cache = build_frame_cache(EMOJI, 32, tmp_path / "cache")
    things = find_things(cache)
    split = next(name for name in ("test", "train") if things.names(name, with_clip=True))
    report = evaluate_super_resolution({}, things, means, 4, split, clips=1, num_frames=3)
    assert report.clips == 1 and report.size == 32 and 10 < report.row("bicubic").psnr < 60
    with pytest.raises(InputError, match="no clips with a caption"):
        evaluate_super_resolution({}, things, means, 4, "nowhere")
