from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cascade import foreign_pipelines as foreign


def seed_weights() -> None:
    """`randomized` adds to weights as they start, which another test's draws must not change."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def karlo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("foreign") / "karlo"
    seed_weights()
    return folder, foreign.karlo(folder)


@pytest.fixture(scope="session")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("foreign") / "x4"
    seed_weights()
    return folder, foreign.stable_diffusion_x4(folder)


@pytest.fixture(scope="session")
def kandinsky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, Any]:
    """The folder that three pipelines lie in, and those: the prior's, 2.2's and 2.1's."""
    folder = tmp_path_factory.mktemp("foreign")
    seed_weights()
    return (
        folder,
        foreign.kandinsky_prior(folder / "prior"),
        foreign.kandinsky_22(folder / "decoder-2.2"),
        foreign.kandinsky_21(folder / "decoder-2.1"),
    )
