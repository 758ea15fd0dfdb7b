"""What completing a video asks of a decoder, ours or somebody else's; see :mod:`inflate.cascade.reconstruction`."""

from typing import Any, ClassVar, Protocol

from torch import Tensor

from inflate.sampling.known import Predict
from inflate.stages import StageSettings


class Completes(Protocol):
    """A decoder stage that unknown frames can be drawn with: ``components`` hold "unet"."""

    components: dict[str, Any]
    needs_embeds: ClassVar[bool]
    told_nothing: ClassVar[bool]

    def reads_prompt(self) -> bool:
        """Whether it is told a prompt."""
        ...

    def scheduler(self) -> Any:
        """The scheduler that it samples with."""
        ...

    def picture_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of a frame as the network draws it; None for what its config says."""
        ...

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, H, W) in [-1, 1] -> (N, c, h, w) as the network draws them."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """The way back, differentiable and not clipped."""
        ...

    def to_pixels(self, latents: Tensor) -> Tensor:
        """(1, c, F, h, w) -> (1, 3, F, H, W) in [-1, 1]."""
        ...

    def predictor(
        self, image_embeds: Tensor | None, prompt: str, num_frames: int, fps: float, settings: StageSettings
    ) -> Predict:
        """(sample (1, c, F, h, w), timestep) -> what the network predicts for one video, guided as ``settings`` say."""
        ...
