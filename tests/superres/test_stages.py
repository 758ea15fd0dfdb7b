"""SR_l^t and SR_h as stages: closed forms, Karlo's own loop, equality of frames, streams, tiles, seeds and progress."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from torch.nn import functional

from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.stages import ChainState, StageSettings, stage_generator, unchanged
from superres.conditioning import enlarge, shrink
from superres.places import Place
from superres.spatial import SpatialConfig, SpatialStage
from superres.spatiotemporal import SpatiotemporalConfig, SpatiotemporalStage
from superres.stage import Job
from tests.superres.networks import SCHEDULE, Local, Oracle, karlo_unet, seeded, solver, tiny_unet, tiny_video_unet

THREE = StageSettings(num_inference_steps=3)


def clip(num_frames: int, height: int = 4, width: int = 4) -> torch.Tensor:
    return torch.rand(3, num_frames, height, width, generator=seeded(0)) * 2 - 1


def spatiotemporal(network: Any, scheduler: Any = None, last: Any = None, **config: Any) -> SpatiotemporalStage:
    components = {"sr_unet": network, "sr_scheduler": scheduler or solver()}
    if last is not None:
        components["sr_last_unet"] = last
    return SpatiotemporalStage(components, config=SpatiotemporalConfig(**config))


def spatial(network: Any, scheduler: Any = None, **config: Any) -> SpatialStage:
    components = {"upscaler_unet": network, "upscaler_scheduler": scheduler or solver()}
    return SpatialStage(components, config=SpatialConfig(**config))


def ancestral() -> DDPMScheduler:
    """A scheduler that draws noise at every step."""
    return DDPMScheduler(**SCHEDULE, timestep_spacing="trailing", clip_sample=False)


def state_of(frames: torch.Tensor, seeds: tuple[int, ...] = (0,), **changes: Any) -> ChainState:
    return ChainState((), seeds, frames.shape[2], 8.0, frames=frames, passed=("interpolation",), **changes)


def cut(frames: torch.Tensor, sizes: list[int]) -> Iterator[torch.Tensor]:
    start = 0
    for size in itertools.cycle(sizes):
        if start >= frames.shape[1]:
            return
        yield frames[:, start : start + size]
        start += size


# What comes out.


@pytest.mark.reference
@pytest.mark.parametrize("make", [spatiotemporal, spatial])
@pytest.mark.parametrize("scheduler", [solver, ancestral])
def test_a_perfect_network_gives_the_picture_back_exactly(make: Any, scheduler: Any) -> None:
    """In residual form x = (picture - enlarged) / std, an answer that is right at every step ends at the picture."""
    picture = torch.rand(1, 3, 32, 32, generator=seeded(1)) * 1.8 - 0.9
    low = shrink(picture, 4)
    network = Oracle(lambda enlarged: (picture - enlarged) / 0.1, patch=4)
    stage = make(network, scheduler(), scale=4, residual_std=0.1)
    made = stage.upscale(low.transpose(0, 1), seed=3, settings=THREE)
    torch.testing.assert_close(made, picture.transpose(0, 1), atol=1e-4, rtol=0)


@pytest.mark.reference
def test_a_network_that_knows_no_residual_gives_the_enlarged_frames_clipped() -> None:
    low = clip(3)
    stage = spatiotemporal(Oracle(torch.zeros_like), residual_std=0.1)
    made = stage.upscale(low, 0, THREE)
    torch.testing.assert_close(made, enlarge(low.transpose(0, 1), 4).clamp(-1, 1).transpose(0, 1), atol=1e-5, rtol=0)
    assert made.shape == (3, 3, 16, 16) and made.abs().max() <= 1 and made.dtype == torch.float32


@pytest.mark.reference
@pytest.mark.parametrize("with_last", [False, True])
@torch.no_grad()
def test_karlos_networks_run_as_in_karlos_own_loop(with_last: bool) -> None:
    scheduler: Any = UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="epsilon", clip_sample_range=1.0)
    first, last = karlo_unet(0), karlo_unet(5)
    stage = spatiotemporal(first, scheduler, last if with_last else None)
    low, steps = clip(2), 4
    made = stage.upscale(low, 9, StageSettings(num_inference_steps=steps))
    for index in range(2):
        generator = stage_generator(9, f"super_resolution/{index}")
        sample = torch.randn(3, 16, 16, generator=generator)[None]
        beside = functional.interpolate(low[None, :, index], (16, 16), mode="bicubic", antialias=True)
        scheduler.set_timesteps(steps)
        for number, timestep in enumerate(scheduler.timesteps):
            ending = number + 1 == steps
            network = last if ending and with_last else first
            predicted = network(torch.cat([sample, beside], dim=1), timestep).sample
            following = None if ending else scheduler.timesteps[number + 1]
            sample = scheduler.step(
                predicted, timestep, sample, prev_timestep=following, generator=generator
            ).prev_sample
        torch.testing.assert_close(made[:, index], sample[0].clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_any_scheduler_will_do(prediction: str) -> None:
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", prediction_type=prediction)
    made = spatial(tiny_unet(), scheduler).upscale(clip(1), 0, THREE)
    assert made.shape == (3, 1, 16, 16) and made.isfinite().all()


def test_sides_that_the_network_cannot_take_are_padded_and_cut_again() -> None:
    low = clip(2, 5, 7)
    stage = spatiotemporal(tiny_video_unet(4), scale=3, residual_std=0.5)
    assert stage.upscale(low, 0, THREE).shape == (3, 2, 15, 21)
    known = spatiotemporal(Oracle(torch.zeros_like, patch=4), scale=3, residual_std=0.5).upscale(low, 0, THREE)
    bicubic = enlarge(low.transpose(0, 1), 3).clamp(-1, 1).transpose(0, 1)
    torch.testing.assert_close(known, bicubic, atol=1e-5, rtol=0)


def test_the_noise_level_reaches_the_network_and_its_input() -> None:
    low = clip(2)
    stage = spatiotemporal(tiny_video_unet())
    clean, noisy, again = (stage.upscale(low, 0, replace(THREE, noise_level=level)) for level in (0.0, 0.3, 0.3))
    assert torch.equal(noisy, again) and not torch.allclose(clean, noisy, atol=1e-3)
    # The noise itself, not only its level: with a network that adds up what it is shown.
    blind = Oracle(lambda enlarged: enlarged, patch=1)
    blind.config.num_class_embeds = 1000
    shown = spatiotemporal(blind).upscale(low, 0, replace(THREE, noise_level=0.3))
    assert not torch.allclose(shown, spatiotemporal(blind).upscale(low, 0, THREE), atol=1e-2)
    with pytest.raises(InputError, match=r"noise_level is 0\.3, but this super-resolution network has no input"):
        spatiotemporal(karlo_unet()).upscale(low, 0, replace(THREE, noise_level=0.3))


# SR_h: equal frames.


@pytest.mark.parametrize("scheduler", [solver, ancestral])
@pytest.mark.parametrize("noise_level", [0.0, 0.2])
def test_equal_frames_come_out_equal_bit_for_bit_in_any_company(scheduler: Any, noise_level: float) -> None:
    settings = replace(THREE, noise_level=noise_level)
    stage = spatial(tiny_unet(), scheduler(), scale=2)
    one, two = clip(2).unbind(1)
    mixed = stage.upscale(torch.stack([one, two, one, one, two, one], dim=1), 5, settings)
    alone = stage.upscale(one[:, None], 5, settings)
    for index in (0, 2, 3, 5):
        assert torch.equal(mixed[:, index], alone[:, 0])
    assert torch.equal(mixed[:, 1], mixed[:, 4]) and not torch.allclose(mixed[:, 0], mixed[:, 1], atol=1e-2)
    assert not torch.allclose(stage.upscale(one[:, None], 6, settings), alone, atol=1e-3)


@pytest.mark.parametrize("scheduler", [solver, ancestral])
def test_independent_noise_makes_equal_frames_differ(scheduler: Any) -> None:
    still = clip(1).expand(-1, 3, -1, -1)
    made = spatial(tiny_unet(), scheduler(), scale=2, shared_noise=False).upscale(still, 5, THREE)
    assert (made[:, 0] - made[:, 1]).abs().mean() > 1e-2
    shared = spatial(tiny_unet(), scheduler(), scale=2).upscale(still, 5, THREE)
    assert not (shared[:, 0] - shared[:, 1]).any()


# SR_l^t: windows and streams.


def test_the_noise_of_a_frame_follows_from_its_number() -> None:
    """A frame by itself, at its number, is what it is in the video: the network has no temporal layers here."""
    low = clip(5)
    whole = spatiotemporal(tiny_unet()).upscale(low, 0, THREE)
    stage = spatiotemporal(tiny_unet())
    third, second = (
        stage._enlarged(low[:, 3:4].transpose(0, 1), number, Job(0, THREE), Place.everything(4, 4), None)
        for number in (3, 2)
    )
    assert torch.equal(whole[:, 3], third[0]) and not torch.equal(whole[:, 3], second[0])


def test_windows_that_overlap_agree_so_nothing_is_seen_of_them() -> None:
    """Fresh temporal layers change nothing: windowed, cross-faded frames must be those of the video in one piece."""
    fresh = InflatedModel(tiny_unet(), "imagen-video-sr", 4)
    low = clip(11)
    small = spatiotemporal(fresh, ancestral(), window=4, overlap=2).upscale(low, 0, THREE)
    whole = spatiotemporal(fresh, ancestral(), window=16).upscale(low, 0, THREE)
    torch.testing.assert_close(small, whole, atol=1e-4, rtol=0)


def test_a_seam_is_no_larger_than_any_other_step() -> None:
    still = clip(1).expand(-1, 14, -1, -1)
    stage = spatiotemporal(tiny_video_unet(), window=6, overlap=3, shared_noise=1.0, residual_std=0.3)
    steps = (stage.upscale(still, 0, THREE).diff(dim=1)).abs().mean(dim=(0, 2, 3))
    hard = spatiotemporal(tiny_video_unet(), window=6, overlap=0, shared_noise=1.0, residual_std=0.3)
    jumps = hard.upscale(still, 0, THREE).diff(dim=1).abs().mean(dim=(0, 2, 3))
    # The ends of the video are not a matter of windows: temporal convolutions meet their border there.
    assert steps[1:-1].max() < 0.5 * jumps[5]


@pytest.mark.parametrize("sizes", [[1], [3], [4, 1, 7], [50]])
@pytest.mark.parametrize("make", [spatiotemporal, spatial])
def test_the_result_does_not_depend_on_how_the_stream_is_cut(make: Any, sizes: list[int]) -> None:
    low = clip(9)
    network = tiny_video_unet() if make is spatiotemporal else tiny_unet()
    options = {"window": 4, "overlap": 1} if make is spatiotemporal else {}
    stage = make(network, **options)
    shares: list[float] = []

    def on_step(video: int, step: int, timestep: Any, sample: torch.Tensor, share: float | None = None) -> torch.Tensor:
        assert share is not None
        shares.append(share)
        return sample

    made = list(stage.stream(state_of(low[None], (2,)), 0, cut(low, sizes), THREE, on_step))
    assert torch.equal(torch.cat(made, dim=1), stage.upscale(low, 2, THREE))
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1) and len(shares) >= 9
    called = stage(state_of(low[None], (2,)), THREE, lambda *given: given[3])
    assert torch.equal(called.frames[0], torch.cat(made, dim=1))


def test_frames_come_before_the_stream_has_ended() -> None:
    taken: list[int] = []

    def endless() -> Iterator[torch.Tensor]:
        for index in itertools.count():
            taken.append(index)
            yield clip(1)

    stage = spatiotemporal(tiny_video_unet(), window=4, overlap=1)
    stream = stage.stream(ChainState((), (0,), 0, 0.0), 0, endless(), THREE, unchanged)
    for seen in (4, 4, 4, 7, 7, 7, 10):
        assert next(stream).shape == (3, 1, 16, 16) and len(taken) == seen


def test_shared_noise_is_the_schemes_unless_the_config_says_it() -> None:
    still = clip(1).expand(-1, 4, -1, -1)
    network = tiny_video_unet()
    network.scheme = network.scheme.changed(shared_noise=1.0)
    made, other = (spatiotemporal(tiny_unet(), shared_noise=1.0).upscale(still, seed, THREE) for seed in (0, 1))
    assert torch.equal(made[:, 0], made[:, 3]) and not torch.allclose(made, other, atol=1e-3)
    by_scheme = spatiotemporal(network)
    assert by_scheme.share() == 1.0 and spatiotemporal(network, shared_noise=0.5).share() == 0.5
    image = by_scheme.without_temporal_layers()
    assert image.window() == (1, 0) and image.share() == 1.0
    frames = image.upscale(still, 0, THREE)
    assert torch.equal(frames[:, 0], frames[:, 3])
    assert not torch.allclose(by_scheme.upscale(still, 0, THREE), frames, atol=1e-3)


def test_the_frame_rate_reaches_a_network_that_knows_it() -> None:
    network = tiny_video_unet(scheme="make-a-video")
    low = clip(3)[None]

    def at(fps: float) -> torch.Tensor:
        frames = spatiotemporal(network)(replace(state_of(low), fps=fps), THREE, lambda *given: given[3]).frames
        assert frames is not None
        return frames

    assert not torch.allclose(at(4), at(30), atol=1e-5)
    assert torch.equal(at(30), at(120)), "rates beyond training are told as the nearest one"


# Tiles.


def in_one_piece(stage: SpatialStage, low: torch.Tensor, settings: StageSettings) -> torch.Tensor:
    """Frames (3, F, h, w) as if a tile were as large as they are, with the noise that their tiles have."""
    height, width = low.shape[2:]
    everything = Place(slice(0, height), slice(0, width), (slice(0, height), slice(0, width)), whole=False)
    pictures = [
        stage._enlarged(frame[None], number, Job(0, settings), everything, None)[0]
        for number, frame in enumerate(low.unbind(1))
    ]
    return torch.stack(pictures, dim=1)


@pytest.mark.parametrize("noise_level", [0.0, 0.2])
def test_one_tile_changes_nothing_and_many_hardly_anything_for_a_local_network(noise_level: float) -> None:
    low = clip(2, 12, 40)
    settings = replace(THREE, noise_level=noise_level)
    network = Local()
    network.config.num_class_embeds = 1000
    whole = spatial(network, residual_std=0.2, tile=160, tile_overlap=32).upscale(low, 0, settings)
    covered = spatial(network, residual_std=0.2, tile=4096).upscale(low, 0, settings)
    assert torch.equal(whole, covered)
    small = spatial(network, residual_std=0.2, tile=48, tile_overlap=16)
    tiled, piece = small.upscale(low, 0, settings), in_one_piece(small, low, settings)
    assert not torch.equal(tiled, piece)
    torch.testing.assert_close(tiled, piece, atol=0.01, rtol=0)
    away_from_edges = (tiled - piece).abs()[..., :16]
    assert away_from_edges.max() < 2e-5  # the temporary file has 16 bits


def test_tiles_leave_no_seam_where_the_network_says_nothing() -> None:
    """What is left is the picture enlarged, of which each tile must be the very cut, at every size."""
    for height, width in ((5, 33), (24, 24), (31, 7)):
        low = clip(2, height, width)
        tiled = spatial(Oracle(torch.zeros_like), residual_std=0.1, tile=32, tile_overlap=9).upscale(low, 0, THREE)
        bicubic = enlarge(low.transpose(0, 1), 4).clamp(-1, 1).transpose(0, 1)
        torch.testing.assert_close(tiled, bicubic, atol=3e-5, rtol=0)


@pytest.mark.parametrize("scheduler", [solver, ancestral])
def test_equal_frames_are_equal_in_tiles_too(scheduler: Any) -> None:
    low = clip(1, 12, 20).expand(-1, 2, -1, -1)
    made = spatial(tiny_unet(), scheduler(), tile=32, tile_overlap=8).upscale(low, 0, THREE)
    assert torch.equal(made[:, 0], made[:, 1]) and made.std() > 0.1


def test_windows_of_tiles_are_faded_as_windows_in_memory() -> None:
    """Fresh temporal layers change nothing, so neither windows nor the file between tiles may be seen."""
    fresh = InflatedModel(tiny_unet(), "imagen-video-sr", 4)
    low, tiles = clip(11, 12, 8), {"tile": 32, "tile_overlap": 8}
    small = spatiotemporal(fresh, window=4, overlap=2, **tiles).upscale(low, 0, THREE)
    whole = spatiotemporal(fresh, window=16, **tiles).upscale(low, 0, THREE)
    torch.testing.assert_close(small, whole, atol=2e-4, rtol=0)


def test_frames_are_told_tile_by_tile_and_add_up() -> None:
    shares: list[float] = []

    def on_step(video: int, step: int, timestep: Any, sample: torch.Tensor, share: float | None = None) -> torch.Tensor:
        assert share is not None
        shares.append(share)
        return sample

    stage, low = spatiotemporal(tiny_video_unet(), window=4, overlap=1, tile=32, tile_overlap=8), clip(6, 12, 8)
    stage(state_of(low[None], (0,)), THREE, on_step)
    tiles = stage.count_tiles(12, 8)
    assert tiles == 2 and shares[: 3 * tiles] == pytest.approx([3 * call / (3 * tiles) / 6 for call in range(1, 7)])
    assert len(shares) == 2 * 3 * tiles and shares == sorted(shares) and shares[-1] == pytest.approx(1)


def test_tiles_of_a_video_see_all_frames() -> None:
    low = clip(3, 12, 8)
    stage = spatiotemporal(tiny_video_unet(), tile=32, tile_overlap=8)
    assert stage.upscale(low, 0, THREE).shape == (3, 3, 48, 32)


# As part of a chain.


def test_videos_do_not_depend_on_their_company_and_progress_never_falls() -> None:
    low = torch.stack([clip(7), clip(7).flip(1)])
    calls: list[tuple[int, int, tuple[int, ...]]] = []
    shares: list[float] = []

    def on_step(video: int, step: int, timestep: Any, sample: torch.Tensor, share: float | None = None) -> torch.Tensor:
        calls.append((video, step, tuple(sample.shape)))
        assert share is not None
        shares.append(share)
        return sample

    stage = spatiotemporal(tiny_video_unet(), window=4, overlap=1)
    made = stage(state_of(low, (1, 2)), THREE, on_step)
    assert made.passed == ("interpolation", "super_resolution") and stage.done(made) and not stage.done(state_of(low))
    assert made.frames is not None and made.frames.shape == (2, 3, 7, 16, 16)
    for video in range(2):
        steps = [step for number, step, _ in calls if number == video]
        assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 2 and len(steps) == 2 * 3
        alone = stage(state_of(low[video : video + 1], (video + 1,)), THREE, lambda *given: given[3])
        assert alone.frames is not None and torch.equal(alone.frames[0], made.frames[video])
    assert {shape for _, _, shape in calls} == {(1, 3, 4, 16, 16)}
    # The first window makes 3 frames that the next one does not, that 4, in three steps each.
    assert shares == pytest.approx([frames / 7 for frames in (1, 2, 3, 13 / 3, 17 / 3, 7)] * 2)


def test_what_a_callback_returns_replaces_the_sample() -> None:
    stage = spatial(tiny_unet(), residual_std=0.2, scale=2)
    low = clip(1)[None]
    zeroed = stage(state_of(low), THREE, lambda *given: torch.zeros_like(given[3]))
    assert zeroed.frames is not None
    torch.testing.assert_close(zeroed.frames[0, :, 0], enlarge(low[0].transpose(0, 1), 2)[0].clamp(-1, 1))


def test_work_counts_frames_of_all_windows() -> None:
    settings = StageSettings(num_inference_steps=2, cost=3.0)
    stage = spatiotemporal(tiny_video_unet(), window=16, overlap=4)
    planned = ChainState((), (0, 1), 16, 8.0, frame_skip=5)
    assert stage.work(planned, settings) == 2 * 2 * (76 + 5 * 4) * 3
    assert stage.work(state_of(torch.zeros(1, 3, 76, 1, 1)), settings) == 2 * 96 * 3
    assert spatial(tiny_unet()).work(planned, settings) == 2 * 2 * 76 * 3


def test_stages_are_read_from_their_folder_and_written_again(tmp_path: Path) -> None:
    stage = spatiotemporal(tiny_video_unet(), window=4, overlap=1)
    entries = stage.save(tmp_path)
    index = {role: (library, name) for role, (library, name) in entries.items()}
    assert index["sr_unet"] == ("diffusers", "UNet2DModel")
    found: Any = SpatiotemporalStage.from_folder(tmp_path, index, config=stage.config)
    assert found.has_temporal_layers() and found.window() == (4, 1)
    found.load(torch.device("cpu"), torch.float32)
    assert isinstance(found.components["sr_unet"], InflatedModel)
    assert torch.equal(found.upscale(clip(5), 0, THREE), stage.upscale(clip(5), 0, THREE))
    found.release()
    assert not found.components
    (tmp_path / "sr_unet/temporal.safetensors").unlink()
    assert found.window() == (1, 0)


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(InputError, match="Super-resolution needs frames"):
        spatial(tiny_unet())(ChainState((), (0,), 4, 8.0), THREE, lambda *given: given[3])
    with pytest.raises(InputError, match="scale must be a whole number from 1 to 16, got 0"):
        SpatialConfig(scale=0)
    with pytest.raises(InputError, match=r"residual_std must be 0 \(no residual\) or more"):
        SpatialConfig(residual_std=-1.0)
    with pytest.raises(InputError, match="window is 4 and overlap 4 frames"):
        SpatiotemporalConfig(window=4, overlap=4)
    with pytest.raises(InputError, match="tile is 8 and tile_overlap 9 px"):
        SpatialConfig(tile=8, tile_overlap=9)
    with pytest.raises(InputError, match="shared_noise must lie between 0 and 1, got 2"):
        SpatiotemporalConfig(shared_noise=2)
