"""Sampling against a network that knows the answer, and what a caller may rely on."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from inflate.errors import InputError
from inflate.inflater import inflate
from inflate.sampling.noise import VideoNoise
from interp.frame_decoder import new_frame_decoder
from interp.sampling import interpolate_frames, spread_frames
from tests.interp.networks import SCHEDULE, Oracle, numbered_video, seeded, solver, trained
from tests.models.tiny_family import WIDTH, tiny_unet, tiny_vae

SIZE = 16


def run(model: Any, known: Tensor, mask: Tensor, vae: Any = None, **changes: Any) -> Tensor:
    options: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 1.0, "generator": seeded(0)}
    embeds = changes.pop("image_embeds", None)
    scheduler = changes.pop("scheduler", None) or solver()
    return interpolate_frames(model, vae, scheduler, known, mask, embeds, changes.pop("fps", 8.0), **options | changes)


def hidden(video: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[None, None, :, None, None], video, torch.zeros(()))


def numbers(count: int, *known: int) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(known)] = True
    return mask


MASKS = {
    "skip 5": torch.arange(76) % 5 == 0,
    "skip 3": torch.arange(40) % 3 == 0,
    "both ends, far apart": numbers(61, 0, 60),
    "first frame, two windows": numbers(24, 0),
    "last frames": torch.arange(40) >= 35,
    "in the middle": numbers(30, 17),
    "one window": numbers(16, 4, 5, 11),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", MASKS)
def test_a_perfect_network_gives_the_true_frames(name: str) -> None:
    mask = MASKS[name]
    truth = numbered_video(len(mask), batch=2)
    made = run(Oracle(truth), hidden(truth, mask), mask)
    torch.testing.assert_close(made, truth, atol=2e-4, rtol=0)
    assert torch.equal(made[:, :, mask], truth[:, :, mask])


@pytest.mark.reference
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(**SCHEDULE, timestep_spacing="trailing", clip_sample=False),
        EulerDiscreteScheduler(**SCHEDULE),
        solver(algorithm_type="sde-dpmsolver++"),
    ],
)
def test_any_scheduler_of_the_prediction_type_will_do(scheduler: Any) -> None:
    truth, mask = numbered_video(16), MASKS["one window"]
    network = Oracle(truth)
    if isinstance(scheduler, EulerDiscreteScheduler):
        network.alphas_cumprod = scheduler.alphas_cumprod.double()
    made = run(network, hidden(truth, mask), mask, scheduler=scheduler)
    # Euler's timesteps are fractions, at which this oracle's alpha is a neighbour's.
    torch.testing.assert_close(made, truth, atol=2e-2, rtol=0)


def test_known_frames_come_back_bit_for_bit_through_a_vae() -> None:
    mask = torch.arange(9) % 4 == 0
    known = torch.rand(2, 3, 9, SIZE, SIZE, generator=seeded(3)) * 2 - 1
    decoder = new_frame_decoder((8, 8), norm_num_groups=4)
    for frame_decoder in (None, decoder):
        before = known.clone()
        made = run(trained(), known, mask, tiny_vae(), frame_decoder=frame_decoder)
        assert torch.equal(made[:, :, mask], known[:, :, mask]) and torch.equal(known, before)
        assert made.dtype == torch.float32 and made.abs().max() <= 1 and made.isfinite().all()


def test_what_unknown_frames_hold_does_not_matter() -> None:
    mask = torch.arange(9) % 4 == 0
    known = hidden(torch.rand(1, 3, 9, SIZE, SIZE, generator=seeded(3)), mask)
    other = known.clone()
    other[:, :, ~mask] = torch.nan
    assert torch.equal(run(trained(), known, mask, tiny_vae()), run(trained(), other, mask, tiny_vae()))


def test_all_known_is_nothing_to_do_and_one_frame_is_a_video() -> None:
    known = torch.rand(1, 3, 1, 4, 4, generator=seeded(3))
    truth = Oracle(known)
    assert torch.equal(run(truth, known, torch.ones(1, dtype=torch.bool)), known) and not truth.calls


def test_the_same_seed_gives_the_same_frames_in_any_company() -> None:
    mask = torch.arange(9) % 4 == 0
    known = torch.rand(2, 3, 9, 4, 4, generator=seeded(3)) * 2 - 1
    model = trained(3)
    both = run(model, known, mask, generator=[seeded(1), seeded(2)])
    alone = run(model, known[1:], mask, generator=seeded(2))
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=0)
    assert torch.equal(alone, run(model, known[1:], mask, generator=seeded(2)))
    assert not torch.allclose(alone, run(model, known[1:], mask, generator=seeded(3)), atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_noise_follows_the_number_of_a_frame_in_the_video(share: float) -> None:
    mask = MASKS["skip 5"]
    truth = numbered_video(len(mask))
    network = Oracle(truth, shared_noise=share)
    run(network, hidden(truth, mask), mask, num_inference_steps=1, generator=seeded(5))
    noise = VideoNoise((3, 4, 4), share, seeded(5), torch.device("cpu"))(0, len(mask))
    assert len(network.calls) == 5
    for call in network.calls:
        torch.testing.assert_close(call.noisy, noise[:, :, call.places])
    longer = VideoNoise((3, 4, 4), share, seeded(5), torch.device("cpu"))(0, 90)
    assert torch.equal(longer[:, :, :76], noise)


@pytest.mark.reference
def test_shared_noise_correlates_frames_and_stays_standard() -> None:
    drawn = [VideoNoise((3, 64, 64), 0.5, seeded(seed), torch.device("cpu"))(0, 2) for seed in range(4)]
    noise = torch.cat(drawn).transpose(1, 2).flatten(2)
    assert abs(float(noise.std()) - 1) < 0.02
    assert abs(float(torch.corrcoef(noise.transpose(0, 1).flatten(1))[0, 1]) - 0.5) < 0.02


def test_windows_are_told_the_rate_of_their_frames_within_what_was_trained() -> None:
    mask = MASKS["both ends, far apart"]
    truth = numbered_video(len(mask))
    for fps, coarse, fine in ((8.0, 2.0, 8.0), (100.0, 25.0, 30.0), (2.0, 1.0, 2.0)):
        network = Oracle(truth)
        run(network, hidden(truth, mask), mask, fps=fps, num_inference_steps=1)
        rates = [float(call.fps) for call in network.calls]
        assert rates[0] == pytest.approx(coarse) and rates[1:] == pytest.approx([fine] * (len(rates) - 1))


def test_embeddings_reach_the_network_and_none_is_zeros() -> None:
    truth, mask = numbered_video(8), numbers(8, 0)
    network = Oracle(truth)
    run(network, hidden(truth, mask), mask, num_inference_steps=1, guidance_scale=3.0)
    assert not network.calls[0].class_labels.any() and network.calls[0].class_labels.shape == (1, WIDTH)
    embeds = torch.randn(1, WIDTH, generator=seeded(8))
    made = run(network, hidden(truth, mask), mask, num_inference_steps=2, guidance_scale=3.0, image_embeds=embeds)
    told = network.calls[-1].class_labels
    assert told.shape == (2, WIDTH) and not told[0].any() and float(told[1].norm()) == pytest.approx(WIDTH**0.5)
    torch.testing.assert_close(made, truth, atol=2e-4, rtol=0)


def test_steps_rise_over_all_windows_and_a_callback_may_change_the_sample() -> None:
    mask = MASKS["skip 5"]
    truth = numbered_video(len(mask))
    steps: list[int] = []

    def note(step: int, timestep: Tensor, sample: Tensor) -> Tensor:
        steps.append(step)
        return sample

    run(Oracle(truth), hidden(truth, mask), mask, on_step=note, num_inference_steps=4)
    assert len(steps) == 20 and steps == sorted(steps) and steps[0] == 0 and steps[-1] == 3
    half = run(Oracle(truth), hidden(truth, mask), mask, on_step=lambda step, timestep, sample: sample * 0)
    assert not half[:, :, ~mask].any() and torch.equal(half[:, :, mask], truth[:, :, mask])


def test_near_known_frames_the_network_is_not_asked_and_far_from_them_it_is() -> None:
    """With a frame decoder, latents of frames within 0.2 s of a known one are not trusted, so none are sampled."""
    mask, truth = torch.arange(9) % 4 == 0, torch.rand(1, 3, 9, SIZE, SIZE, generator=seeded(3)) * 2 - 1
    decoder = new_frame_decoder((8, 8), norm_num_groups=4)

    def made(fps: float, seed: int) -> tuple[Tensor, list[tuple[int, float]]]:
        told: list[tuple[int, float]] = []

        def on_step(step: int, timestep: Tensor, sample: Tensor) -> Tensor:
            told.append((step, float(timestep)))
            return sample

        options: dict[str, Any] = {"fps": fps, "generator": seeded(seed), "on_step": on_step, "frame_decoder": decoder}
        return run(trained(), hidden(truth, mask), mask, tiny_vae(), **options), told

    (near, told), (near_again, _) = made(30.0, 1), made(30.0, 2)
    assert torch.equal(near, near_again)
    (far, told_far), (far_again, _) = made(2.0, 1), made(2.0, 2)
    assert not torch.equal(far, far_again)
    assert not any(timestep for _, timestep in told) and told[-1][0] == told_far[-1][0] == 2
    assert len(told_far) == 3 * len(told), "a window that is not sampled is told of once, as done"


def test_windows_go_on_from_frames_that_were_not_sampled() -> None:
    mask = numbers(24, 0)
    frame = torch.rand(1, 3, 1, SIZE, SIZE, generator=seeded(3)) * 2 - 1
    decoder = new_frame_decoder((8, 8), norm_num_groups=4)
    known = torch.cat([frame, torch.zeros(1, 3, 23, SIZE, SIZE)], dim=2)
    made = run(trained(), known, mask, tiny_vae(), fps=200.0, frame_decoder=decoder)
    torch.testing.assert_close(made, frame.expand_as(made), atol=1e-4, rtol=0)


# Spreading, and what is refused.


def test_sixteen_frames_at_skip_five_are_seventy_six() -> None:
    frames = torch.rand(2, 3, 16, 4, 4, generator=seeded(0))
    sparse, mask = spread_frames(frames, 5)
    assert sparse.shape == (2, 3, 76, 4, 4) and mask.nonzero().flatten().tolist() == list(range(0, 76, 5))
    assert torch.equal(sparse[:, :, mask], frames) and not sparse[:, :, ~mask].any()
    same, everything = spread_frames(frames, 1)
    assert torch.equal(same, frames) and everything.all()
    assert spread_frames(frames[:, :, :1], 5)[1].tolist() == [True]


@pytest.mark.parametrize("skip", [0, -1, 1.5, True])
def test_a_bad_skip_is_one_sentence(skip: Any) -> None:
    with pytest.raises(InputError, match="whole number of 1 or more"):
        spread_frames(torch.zeros(1, 3, 2, 4, 4), skip)


def test_bad_input_is_one_sentence() -> None:
    video, mask = torch.zeros(1, 3, 4, 4, 4), numbers(4, 0)
    network = Oracle(video)
    cases: list[tuple[str, Any]] = [
        ("at least one known frame", lambda: run(network, video, numbers(4))),
        ("must be .batch, 3", lambda: run(network, video[0], mask)),
        ("one bool for each of 4 frames", lambda: run(network, video, numbers(5, 0))),
        ("one bool for each of 4 frames", lambda: run(network, video, mask.float())),
        ("takes 0 channels beside its 3", lambda: run(inflate(tiny_unet(3), num_frames=4), video, mask)),
        ("same family", lambda: run(network, video, mask, image_embeds=torch.zeros(1, 3))),
        ("as many generators", lambda: run(network, video, mask, generator=[seeded(0), seeded(1)])),
        ("cannot use a FlowMatch", lambda: run(network, video, mask, scheduler=FlowMatchEulerDiscreteScheduler())),
    ]
    for sentence, call in cases:
        with pytest.raises(InputError, match=sentence):
            call()
