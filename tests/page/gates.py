"""A stage whose network stops in the middle of itself until a test lets it go on."""

import threading
from typing import Any

import torch

from tests.cascade.test_applications import RecordingInterpolation


class Gate(torch.nn.Module):
    """A layer that waits while it is ``shut``; ``reached`` is set when something has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self._open = threading.Event(), threading.Event()
        self._open.set()

    def shut(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.reached.set()
        assert self._open.wait(120), "nobody opened the gate"
        return values


class Gated(RecordingInterpolation):
    """Frame interpolation with a gate before many layers, ``calls`` of which counts those that ran; no step between."""

    layers = 1000

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.layer, self.calls = Gate(), torch.nn.Identity(), 0

    def __call__(self, state: Any, settings: Any, on_step: Any) -> Any:
        values = self.gate(torch.zeros(1))
        for _ in range(self.layers):
            values = self.layer(values)
            self.calls += 1
        return super().__call__(state, settings, on_step)
