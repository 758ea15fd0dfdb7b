"""Long videos by windows: what the network sees, and that its answer is the same where windows cannot matter."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from inflate.diffusion.guidance import Guidance
from inflate.errors import InputError
from inflate.inflater import inflate
from inflate.models.decoder import DecoderStage, sample_latents
from inflate.sampling.denoiser import Denoiser
from inflate.sampling.noise import frame_noise
from inflate.sampling.windows import WindowConfig, Windows, windows_of
from inflate.stages import ChainState, StageSettings
from tests.models.tiny_family import WIDTH, tiny_scheduler, tiny_unet, tiny_vae, tiny_video_unet

CPU = torch.device("cpu")
TIME = torch.tensor(500)
SETTINGS: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 2.0}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeds() -> Tensor:
    return torch.nn.functional.normalize(torch.randn(1, WIDTH, generator=seeded(9)), dim=-1)


def by_itself(sample: Tensor, timestep: Tensor, middle: float = 0.0) -> Tensor:
    """A network to which frames are nothing to each other."""
    return (sample * 1.7).sin() + 0.01 * timestep


def windowed_by(predict: Callable[[Tensor, Tensor, float], Tensor], windows: Windows) -> Denoiser:
    """What a sampler asks a network of that prediction, which is told the middle of each window."""

    def network(sample: Tensor, timestep: Tensor, middle: float) -> SimpleNamespace:
        return SimpleNamespace(sample=predict(sample, timestep, middle))

    model = SimpleNamespace(dtype=torch.float32)
    return Denoiser(
        model, tiny_scheduler(), lambda middle: {"middle": middle}, Guidance(), windows=windows, network=network
    )


def test_windows_change_nothing_for_a_network_that_ignores_other_frames() -> None:
    sample = torch.randn(2, 3, 41, 4, 4, generator=seeded(0))
    predict = windowed_by(by_itself, Windows(8, 5))
    for _ in range(6):  # windows move
        assert torch.equal(predict(sample, TIME), by_itself(sample, TIME))


def test_the_network_sees_whole_windows_and_never_more() -> None:
    seen: list[tuple[int, float]] = []

    def predict(sample: Tensor, timestep: Tensor, middle: float) -> Tensor:
        assert sample[0, 0, :, 0, 0].mean() == middle, "the middle is that of its frames"
        seen.append((sample.shape[2], middle))
        return sample

    numbers = torch.arange(100.0).view(1, 1, 100, 1, 1)
    windowed = windowed_by(predict, Windows(16, 8))
    first, second = windowed(numbers, TIME), list(seen)
    assert torch.equal(first, numbers) and {count for count, _ in seen} == {16}
    windowed(numbers, TIME)
    assert seen[len(second) :] != second, "windows move from call to call"
    assert len(second) == 12 and Windows(16, 8).frames_seen(100) == 12 * 16


def test_anchored_windows_begin_with_the_first_frame() -> None:
    firsts: list[float] = []

    def predict(sample: Tensor, timestep: Tensor, middle: float) -> Tensor:
        firsts.append(float(sample[0, 0, 0, 0, 0]))
        return sample

    numbers = torch.arange(40.0).view(1, 1, 40, 1, 1)
    made = windowed_by(predict, Windows(8, 4, anchored=True))(numbers, TIME)
    assert set(firsts) == {0.0} and len(firsts) > 3
    assert torch.equal(made, numbers), "what an anchored window says of its first place is not that frame's"


def test_windows_follow_the_model() -> None:
    assert windows_of(tiny_video_unet()) == Windows(4, 2)
    assert windows_of(tiny_video_unet(), WindowConfig(overlap=0, moving=True)) == Windows(4, 0, moving=False)
    assert windows_of(tiny_unet()) == Windows(16, 0, moving=False)
    free = inflate(tiny_unet(), scheme="text2video-zero", num_frames=4)
    assert windows_of(free, WindowConfig(overlap=0)) == Windows(4, 1, anchored=True)
    with pytest.raises(InputError, match="overlap must be a share of a window"):
        WindowConfig(overlap=1.0)


def test_an_image_model_draws_every_frame_as_it_does_alone() -> None:
    # Up to the rounding of batches of another size.
    long = sample_latents(tiny_unet(), tiny_scheduler(), embeds(), 37, generator=seeded(0), **SETTINGS)
    short = sample_latents(tiny_unet(), tiny_scheduler(), embeds(), 5, generator=seeded(0), **SETTINGS)
    torch.testing.assert_close(long[:, :, :5], short, atol=1e-4, rtol=1e-4)
    fresh = inflate(tiny_unet(), num_frames=4)
    inflated = sample_latents(fresh, tiny_scheduler(), embeds(), 37, 8, generator=seeded(0), **SETTINGS)
    torch.testing.assert_close(inflated, long, atol=1e-4, rtol=1e-4)


def test_a_network_that_looks_around_sees_what_lies_in_its_windows() -> None:
    model, counts = tiny_video_unet(), []
    hook = model.image_model.register_forward_pre_hook(lambda module, args: counts.append(len(args[0])))
    long = sample_latents(model, tiny_scheduler(), embeds(), 19, 8, generator=seeded(0), **SETTINGS)
    hook.remove()
    assert long.shape == (1, 4, 19, 4, 4) and max(counts) == min(counts) == 2 * 4, "with guidance, two of a window"
    still = WindowConfig(overlap=0.25, moving=False)
    other = sample_latents(model, tiny_scheduler(), embeds(), 19, 8, generator=seeded(0), windows=still, **SETTINGS)
    assert not torch.allclose(long, other, atol=1e-3)


def test_a_video_of_the_models_own_length_is_drawn_as_ever() -> None:
    model = tiny_video_unet()
    plain = sample_latents(model, tiny_scheduler(), embeds(), 4, 8, generator=seeded(0), **SETTINGS)
    config = WindowConfig(repeat_noise=True)
    assert torch.equal(
        plain, sample_latents(model, tiny_scheduler(), embeds(), 4, 8, generator=seeded(0), windows=config, **SETTINGS)
    )


def test_repeated_noise_keeps_what_the_scheme_shares() -> None:
    model = tiny_video_unet()
    object.__setattr__(model, "scheme", model.scheme.changed(shared_noise=0.5))
    model.image_model.register_to_config(sample_size=64)
    plain = frame_noise(model, 1, 16, seeded(0), CPU)
    noise = frame_noise(model, 1, 16, seeded(0), CPU, None, Windows(4, 2))
    assert torch.equal(noise[:, :, :4], plain[:, :, :4]) and not torch.equal(noise[:, :, 4:], plain[:, :, 4:])
    flat = noise[0].transpose(0, 1).flatten(1)
    correlation = torch.corrcoef(flat)
    same = correlation > 0.9
    assert (same.sum(1) == 4).all(), "sixteen frames, four noises"
    torch.testing.assert_close(correlation[~same], torch.full_like(correlation[~same], 0.5), atol=0.05, rtol=0)
    torch.testing.assert_close(flat.var(1), torch.ones(16), atol=0.05, rtol=0)


def test_chunks_of_a_video_are_the_video() -> None:
    stage = DecoderStage({"unet": tiny_video_unet(), "scheduler": tiny_scheduler(), "vae": tiny_vae()})
    state = ChainState((), (3,), 21, 8.0, image_embeds=embeds())
    two = StageSettings(num_inference_steps=2, guidance_scale=1.0)
    steps: list[int] = []

    def keep(video: int, step: int, timestep: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
        steps.append(step)
        return sample

    whole = stage(state, two, keep).frames
    chunks = list(stage.stream(state, 0, None, two, keep))
    assert whole is not None and steps == [0, 1, 0, 1]
    assert [chunk.shape[1] for chunk in chunks] == [16, 5]
    assert torch.equal(torch.cat(chunks, dim=1), whole[0])
    assert stage.window_size() == 4 and stage.work(state, two) == 2 * 4 * 10
