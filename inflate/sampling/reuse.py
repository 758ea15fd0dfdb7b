"""Deep features of a UNet used again in the next evaluations, as neighbouring ones hardly differ in them.

DeepCache (arXiv:2312.00858, section 3.2): what all blocks but the outermost make is computed at every N-th evaluation.
In those between the outermost down block and the outermost up block run alone, with temporal layers and skip connection
of their own; what comes from below is that of the last full evaluation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from inflate.errors import InputError
from inflate.inflater import InflatedModel


class DeepFeatures:
    """The deep blocks of one UNet during one sampling; ``every`` as of ``GuidanceOptions.reuse``."""

    def __init__(self, model: Any, every: int) -> None:
        """Raises ``InputError`` for a network that has no blocks within others."""
        unet = model.image_model if isinstance(model, InflatedModel) else model
        down, up = getattr(unet, "down_blocks", None), getattr(unet, "up_blocks", None)
        if every > 1 and (down is None or up is None or len(down) < 2 or len(up) < 2):
            raise InputError(
                f"reuse keeps the deep features of a UNet of two blocks or more, which {type(unet).__name__} is not; "
                "leave it out."
            )
        self.every = every
        middle = getattr(unet, "mid_block", None)
        self._deep: list[nn.Module] = []
        if every > 1 and down is not None and up is not None:
            self._deep = [*down[1:], *([] if middle is None else [middle]), *up[:-1]]
        self._kept: dict[tuple[int, int], Any] = {}  # (window, module) -> what it made
        self._shape: tuple[int, ...] = ()

    @contextmanager
    def during(self, evaluation: int, window: int, inputs: Tensor) -> Iterator[None]:
        """While the network is called with ``inputs``: the ``evaluation``-th time (from 0), for that window."""
        if not self._deep:
            yield
            return
        anew = evaluation % self.every == 0 or tuple(inputs.shape) != self._shape
        if anew:
            self._shape = tuple(inputs.shape)
            self._kept = {} if window == 0 else self._kept
        try:
            for number, module in enumerate(self._deep):
                # An attribute of the object, which nn.Module calls in place of the class's; its hooks run as ever.
                module.forward = partial(self._answer, (window, number), module.forward, anew)
            yield
        finally:
            for module in self._deep:
                vars(module).pop("forward", None)

    def _answer(self, key: tuple[int, int], forward: Any, anew: bool, *inputs: Any, **options: Any) -> Any:
        if anew or key not in self._kept:
            self._kept[key] = forward(*inputs, **options)
        return self._kept[key]
