from typing import Any

import pytest
import torch
from torch.nn import functional

from inflate.errors import InputError
from inflate.models.prior import PriorStage, prior_sample
from inflate.stages import ChainState, StageSettings
from tests.models.tiny_family import WIDTH, tiny_encoder, tiny_prior, tiny_prior_scheduler


class CountingPrior(torch.nn.Module):
    """A prior that remembers the batch sizes it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = tiny_prior()
        self.config, self.dtype = self.prior.config, torch.float32
        self.batches: list[int] = []

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **conditioning: torch.Tensor) -> Any:
        self.batches.append(len(sample))
        return self.prior(sample, timestep, **conditioning)

    def post_process_latents(self, latents: torch.Tensor) -> torch.Tensor:
        return self.prior.post_process_latents(latents)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def loop_by_hand(texts: list[str], scale: float, steps: int) -> torch.Tensor:
    """unCLIP's ancestral sampler for x0-prediction, written out from its formulas with float64 coefficients."""
    encoder, prior, scheduler = tiny_encoder(), tiny_prior(), tiny_prior_scheduler()
    text, null = encoder.encode_text(texts), encoder.encode_text([""] * len(texts))
    alphas = scheduler.alphas_cumprod.double()
    generators = [seeded(number) for number in range(len(texts))]
    sample = torch.stack([torch.randn(WIDTH, generator=one) for one in generators])
    timesteps = torch.linspace(0, 999, steps).round().long().flip(0).tolist()
    for index, now in enumerate(timesteps):

        def clean(which: Any, at: int = now, sample: torch.Tensor = sample) -> torch.Tensor:
            embeds, hidden, mask = which
            return prior(sample, at, embeds, hidden, mask).predicted_image_embedding

        x0 = clean(null) + scale * (clean(text) - clean(null))
        x0 = x0.clamp(-5, 5)
        before = alphas[timesteps[index + 1]] if index + 1 < steps else torch.tensor(1.0).double()
        alpha = alphas[now] / before
        mean = (before.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - before) * sample) / (1 - alphas[now])
        sample = mean.float()
        if now > 0:
            variance = (1 - before) / (1 - alphas[now]) * (1 - alpha)
            noise = torch.stack([torch.randn(WIDTH, generator=one) for one in generators])
            sample = (mean + variance.sqrt() * noise).float()
    return functional.normalize(sample * prior.clip_std + prior.clip_mean, dim=-1)


@pytest.mark.reference
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_sampling_is_the_loop_written_by_hand(scale: float) -> None:
    encoder = tiny_encoder()
    texts = ["party popper", "red heart"]
    with torch.no_grad():
        text, null = encoder.encode_text(texts), encoder.encode_text([""])
    made = prior_sample(
        tiny_prior(),
        tiny_prior_scheduler(),
        text.text_embeds,
        text.text_hidden_states,
        text.mask,
        guidance_scale=scale,
        num_inference_steps=4,
        generator=[seeded(0), seeded(1)],
        null_text=null,
    )
    # diffusers computes its coefficients in float32, where 1 - alpha is known to one part in a thousand at t = 0.
    torch.testing.assert_close(made, loop_by_hand(texts, scale, 4), atol=3e-4, rtol=0)
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(2))


def test_guidance_of_one_evaluates_only_the_prompts() -> None:
    with torch.no_grad():
        text, null = tiny_encoder().encode_text(["red heart"]), tiny_encoder().encode_text([""])
    made, batches = {}, {}
    for scale in (1.0, 2.0, 0.0):
        prior = CountingPrior()
        made[scale] = prior_sample(prior, tiny_prior_scheduler(), *text, scale, 3, seeded(0), null)
        batches[scale] = prior.batches
    assert batches == {1.0: [1, 1, 1], 2.0: [2, 2, 2], 0.0: [2, 2, 2]}
    assert not torch.allclose(made[1.0], made[2.0], atol=1e-4)
    # g = 0 is the empty prompt itself.
    alone = prior_sample(tiny_prior(), tiny_prior_scheduler(), *null, 1.0, 3, seeded(0))
    torch.testing.assert_close(made[0.0], alone, atol=1e-5, rtol=0)


def test_guidance_needs_the_empty_prompt() -> None:
    with torch.no_grad():
        text = tiny_encoder().encode_text(["red heart"])
    with pytest.raises(InputError, match="needs null_text"):
        prior_sample(tiny_prior(), tiny_prior_scheduler(), *text, 2.0, 3)


def test_a_number_of_steps_the_scheduler_cannot_do() -> None:
    with torch.no_grad():
        text = tiny_encoder().encode_text(["red heart"])
    with pytest.raises(InputError, match="UnCLIPScheduler cannot sample in 1 steps"):
        prior_sample(tiny_prior(), tiny_prior_scheduler(), *text, 1.0, 1)


def stage() -> PriorStage:
    return PriorStage(
        {"text_encoder": tiny_encoder(), "prior": tiny_prior(), "prior_scheduler": tiny_prior_scheduler()}
    )


def test_a_prompt_does_not_depend_on_its_company() -> None:
    settings = StageSettings(num_inference_steps=3, guidance_scale=2.0)

    def run(prompts: tuple[str, ...], seeds: tuple[int, ...]) -> torch.Tensor:
        state = stage()(
            ChainState(prompts, seeds, 4, 8.0), settings, lambda video, step, time, sample, share=None: sample
        )
        assert state.image_embeds is not None
        return state.image_embeds

    both = run(("red heart", "sun"), (7, 8))
    assert torch.equal(both[1:], run(("sun",), (8,)))
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_a_long_prompt_is_cut_with_a_warning() -> None:
    settings = StageSettings(num_inference_steps=2, guidance_scale=1.0)
    state = ChainState(("a very long prompt about many things that never ends",), (0,), 4, 8.0)
    with pytest.warns(UserWarning, match="only the first 11 were read"):
        stage()(state, settings, lambda video, step, time, sample, share=None: sample)
