"""Threads that share a cascade, or have one each, make what one alone makes; their weights come from a folder."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inflate
from inflate.cascade import Cascade
from inflate.video import Video
from tests.cli.toys import tiny_chain
from tests.models.tiny_family import tiny_unet

ROUNDS = 13  # of two threads at once, in each of eight ways
ONCE: dict[str, Any] = {"num_inference_steps": {"prior": 2, "decoder": 1}, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chain") / "chain"
    tiny_chain().save_pretrained(path)
    return path


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def called(cascade: Cascade, seed: int) -> torch.Tensor:
    made = cascade("moon", 2, generator=seeded(seed), frame_skip=1, until="decoder", output_type="pt", **ONCE).frames
    assert isinstance(made, torch.Tensor)
    return made


def streamed(cascade: Cascade, seed: int) -> torch.Tensor:
    made = cascade.stream("moon", 3, generator=seeded(seed), frame_skip=2, **ONCE)
    return torch.cat(list(made.chunks), dim=1)


def enlarged(cascade: Cascade, seed: int) -> torch.Tensor:
    frames = torch.rand(3, 2, 8, 8, generator=seeded(seed)) * 2 - 1
    return torch.cat(list(cascade.upscale_chunks(iter(frames.split(1, dim=1)), 2, generator=seeded(seed), **ONCE)), 1)


def varied(cascade: Cascade, seed: int) -> torch.Tensor:
    frames = np.random.default_rng(seed).integers(0, 256, (2, 16, 16, 3), np.uint8)
    options: dict[str, Any] = {**ONCE, "until": "decoder", "output_type": "pt", "generator": seeded(seed)}
    made = cascade.vary(Video(frames, 8.0), 2, frame_skip=1, **options).frames
    assert isinstance(made, torch.Tensor)
    return made


def pairs(first: Callable[[], torch.Tensor], second: Callable[[], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """What two threads make that begin together, round after round."""
    both = threading.Barrier(2)

    def begun(make: Callable[[], torch.Tensor]) -> torch.Tensor:
        both.wait(60)
        return make()

    with ThreadPoolExecutor(2) as threads:
        for _ in range(ROUNDS):
            yield [one.result(120) for one in [threads.submit(begun, make) for make in (first, second)]]


@pytest.mark.parametrize("make", [called, streamed, enlarged, varied], ids=lambda make: make.__name__)
@pytest.mark.parametrize("shared", [True, False], ids=["one cascade", "one each"])
def test_two_threads_make_what_each_would_alone(
    folder: Path, make: Callable[[Cascade, int], torch.Tensor], shared: bool
) -> None:
    one = Cascade.from_pretrained(folder, "cpu")
    other = one if shared else Cascade.from_pretrained(folder, "cpu")
    wanted = [make(one, seed) for seed in (1, 2)]
    for made in pairs(lambda: make(one, 1), lambda: make(other, 2)):
        assert all(torch.equal(*two) for two in zip(made, wanted, strict=True))


def test_layers_begun_while_another_thread_loads_are_drawn_as_ever(folder: Path) -> None:
    """Libraries take torch's random starts away while they load, for the whole process."""
    cascade = Cascade.from_pretrained(folder, "cpu")
    network = tiny_unet()

    def begun() -> torch.Tensor:
        model = inflate.inflate(network, num_frames=4)
        parameters = [parameter.detach().flatten() for parameter in model.temporal_parameters()]
        inflate.deflate(model)
        return torch.cat(parameters)

    stages = cascade.stages

    def loaded() -> torch.Tensor:
        for stage in stages:
            with cascade.loaded(stage):
                pass
        return torch.zeros(())

    spread = begun().std()
    for made in pairs(begun, loaded):
        assert torch.isfinite(made[0]).all() and made[0].std() == pytest.approx(float(spread), rel=0.05)
