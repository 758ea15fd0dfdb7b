"""Random tensors from which an adapter makes valid inputs of its image model."""

import torch
from torch import Tensor, nn

NUM_TEXT_TOKENS = 7
NUM_TIMESTEPS = 1000


class RandomSource:
    """Random tensors on the model's device, drawn on the CPU so that a seed means the same everywhere."""

    def __init__(self, image_model: nn.Module, batch: int, generator: torch.Generator | None) -> None:
        parameter = next(p for p in image_model.parameters() if p.is_floating_point())
        self.device, self.dtype, self.batch, self.generator = parameter.device, parameter.dtype, batch, generator

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
