"""What enlarging takes, before it starts: stages, size, disk, time; and factors between those of the stages."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from inflate.cascade import Cascade, applications, enlarging
from inflate.cascade.enlarging import Enlarging, in_words, stages_for, usual_factor, whole_factors
from inflate.data.spool import CHUNK_BYTES, frames_of_chunk
from inflate.errors import InputError
from inflate.page.uploads import MAX_UPSCALED_BYTES
from inflate.stages import ChainState, unchanged
from inflate.video import Video
from superres.store import BYTES_PER_PIXEL
from tests.cascade.test_applications import Doubling, DoublingAgain, seeded, video
from tests.cli.toys import super_resolution_stages

STAGES = super_resolution_stages()  # 4 times, then twice


@pytest.fixture
def cascade() -> Any:
    return Cascade(STAGES, device="cpu", keep_loaded=True)


@pytest.mark.parametrize(
    ("factor", "names"),
    [
        (None, ["super_resolution", "upscaler"]),
        (1, ["upscaler"]),
        (1.5, ["upscaler"]),
        (2, ["upscaler"]),
        (2.01, ["super_resolution"]),
        (4, ["super_resolution"]),
        (5, ["super_resolution", "upscaler"]),
        (8, ["super_resolution", "upscaler"]),
    ],
)
def test_a_factor_takes_the_stages_that_make_the_fewest_pixels(factor: float | None, names: list[str]) -> None:
    assert [stage.name for stage in stages_for(STAGES, factor)] == names
    assert whole_factors(STAGES) == [2, 4, 8]


@pytest.mark.parametrize("factor", [0.5, 0, -2, 8.5, math.nan, math.inf])
def test_other_factors_are_refused(factor: float, cascade: Any) -> None:
    with pytest.raises(InputError, match=r"The factor is .*; this model enlarges 1 to 8 times \(exactly 2, 4, 8;"):
        cascade.upscale(video(), factor)


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(64, 64, 8), (288, 512, 8), (480, 854, 4), (720, 1280, 2), (2160, 3840, 2)]
)
def test_the_usual_factor_makes_no_more_than_4k(height: int, width: int, factor: int) -> None:
    assert usual_factor(STAGES, height, width) == factor


def test_the_page_enlarges_as_far_as_its_memory_goes() -> None:
    """120 frames of 256 px a side, its most, become 1024 px: 377 MB."""
    assert usual_factor(STAGES, 256, 256, MAX_UPSCALED_BYTES // (3 * 120)) == 4
    assert usual_factor(STAGES, 64, 64, MAX_UPSCALED_BYTES // (3 * 120)) == 8


@pytest.mark.parametrize("factor", [1, 1.5, 2, 3, 4, 5.5, 8])
def test_frames_get_the_size_they_should_and_keep_what_they_show(cascade: Any, factor: float) -> None:
    small = Video(np.stack([np.full((12, 20, 3), 40 * number, np.uint8) for number in range(3)]), 8)
    plan = cascade.enlarging(small, factor)
    assert plan.size == (round(12 * factor), round(20 * factor))
    out = cascade.upscale(small, factor, generator=seeded(), output_type="pt")
    assert out.frames.shape == (1, 3, 3, *plan.size)
    levels = out.frames.mean(dim=(0, 2, 3, 4))
    assert levels[0] < levels[1] < levels[2]
    streamed = list(cascade.upscale_chunks(iter([torch.zeros(3, 2, 12, 20)]), 2, factor, generator=seeded()))
    assert [tuple(chunk.shape[2:]) for chunk in streamed] == [plan.size] * 2


def test_shrinking_is_the_mean_of_areas() -> None:
    large = torch.rand(3, 2, 8, 12)
    [half] = enlarging.shrunk([large], 4, 2)
    torch.testing.assert_close(half, large.unflatten(3, (6, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5)))
    [same] = enlarging.shrunk([large], 4, 4)
    assert same is large


def test_large_videos_give_the_same_frames_in_less_memory(cascade: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two stages frames are 8-bit pixels then; a single stage changes nothing at all."""
    for until, most in (("super_resolution", 0.0), ("upscaler", 0.02)):
        for output_type in ("pil", "np", "pt"):
            monkeypatch.undo()
            options: dict[str, Any] = {"until": until, "output_type": output_type}
            small = cascade.upscale(video(), generator=seeded(), **options)
            monkeypatch.setattr(applications, "_HELD_BYTES", 0)
            large = cascade.upscale(video(), generator=seeded(), **options)
            assert large.fps == small.fps and type(large.frames) is type(small.frames)
            ours, theirs = (np.stack([np.asarray(one) for one in made.frames[0]]) for made in (large, small))
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            scale = 255 if output_type == "pil" else 1
            assert abs(ours.astype(float) - theirs).mean() <= most * scale


def test_the_disk_is_counted(cascade: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Enlarging(tuple(STAGES), (720, 1280), 100)
    assert plan.size == (5760, 10240) and plan.made(1) == (2880, 5120)
    between = 100 * 2880 * 5120 * 3
    # Of 16-bit windows: 2 of 8 frames beside the first stage, whose windows overlap; one frame beside the second.
    stores = (2 * 8 * 2880 * 5120 * BYTES_PER_PIXEL, 5760 * 10240 * BYTES_PER_PIXEL)
    assert plan.disk_bytes() == between + max(stores)
    assert Enlarging(tuple(STAGES), (64, 64), 10).disk_bytes() == 10 * 256 * 256 * 3
    plan.check_disk()
    usage = type("usage", (), {"free": plan.disk_bytes() - 1})
    monkeypatch.setattr(enlarging.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"Temporary files take 5\.8 GB in .*, which has 5\.8 GB left; make room"):
        plan.check_disk()


def test_the_time_is_that_of_small_tiles_as_often_as_they_are(cascade: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that a network moves by one second for each pixel it sees, the estimate is exact."""
    clock = 0.0
    seen: list[int] = []

    def moves(module: Any, inputs: Any) -> None:
        nonlocal clock
        pixels = inputs[0].numel() // inputs[0].shape[1]
        clock += pixels
        seen.append(pixels)

    monkeypatch.setattr("superres.stage.time.perf_counter", lambda: clock)
    for stage in STAGES:
        network = stage.components[stage.unet_role]
        network = getattr(network, "image_model", network)
        handle = network.register_forward_pre_hook(moves)
        try:
            for count, height, width in ((30, 20, 30), (3, 150, 140), (20, 16, 16)):
                state = ChainState((), (0,), count, 0.0)
                told = stage.seconds(state, height, width, stage.defaults)
                before = clock
                stage(replace(state, frames=torch.zeros(1, 3, count, height, width)), stage.defaults, unchanged)
                assert told == pytest.approx(clock - before, rel=0.15)
        finally:
            handle.remove()


def test_progress_moves_with_each_tile(cascade: Any) -> None:
    fractions: list[float] = []

    def on_step(cascade: Any, step: int, timestep: Any, values: dict[str, Any]) -> None:
        fractions.append(values["progress"].fraction)

    chunks = iter([torch.zeros(3, 4, 150, 60)])
    list(cascade.upscale_chunks(chunks, 4, 4, callback_on_step_end=on_step))
    tiles = STAGES[0].count_tiles(150, 60)
    assert tiles > 1 and fractions == pytest.approx([number / tiles for number in range(1, tiles + 1)])
    fractions.clear()
    cascade.upscale(video(9), callback_on_step_end=on_step)
    assert fractions == sorted(fractions) and len(set(fractions)) >= 9 and fractions[-1] == pytest.approx(1)


def test_works_that_were_measured_shape_progress() -> None:
    cascade = Cascade([Doubling(), DoublingAgain()], device="cpu")
    seen: list[float] = []

    def on_step(cascade: Any, step: int, timestep: Any, values: dict[str, Any]) -> None:
        seen.append(values["progress"].fraction)

    list(cascade.upscale_chunks(iter([torch.zeros(3, 4, 4, 4)]), 4, works=[1, 9], callback_on_step_end=on_step))
    assert seen == pytest.approx([0.1, 1.0])


def test_chunks_have_few_bytes() -> None:
    assert frames_of_chunk(64, 64) == 16 and frames_of_chunk(2160, 3840) == 1
    assert frames_of_chunk(720, 1280) * 720 * 1280 * 3 <= CHUNK_BYTES


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (61, "61 s"), (95, "2 min"), (7000, "117 min"), (7300, "2.0 hours")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
