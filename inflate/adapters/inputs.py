"""Random tensors from which an adapter makes valid inputs of its image model."""

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_TEXT_TOKENS = 7
NUM_TIMESTEPS = 1000


@dataclass(frozen=True)
class RandomSource:
    """Random tensors for a model's device, drawn on the CPU so that a seed means the same everywhere."""

    device: torch.device
    dtype: torch.dtype
    batch: int
    generator: torch.Generator | None = None

    def normal(self, *shape: int) -> Tensor:
        """(batch, *shape) from the standard normal."""
        if self.device.type == "meta":
            return torch.empty(self.batch, *shape, device="meta", dtype=self.dtype)
        return torch.randn(self.batch, *shape, generator=self.generator).to(self.device, self.dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """(batch, *shape) whole numbers from `low` to `high` - 1."""
        if self.device.type == "meta":
            return torch.empty(self.batch, *shape, device="meta", dtype=torch.long)
        return torch.randint(low, high, (self.batch, *shape), generator=self.generator).to(self.device)
