"""What an adapter knows of one class of image models, so that nothing else need ask which class it has."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from inflate.adapters.inputs import NUM_TIMESTEPS
from inflate.errors import InputError
from inflate.layers import PictureTokens, Place, Where
from inflate.schemes import Scheme

DEFAULT_SIZE = 32  # height and width for a config without sample_size


class Adapter(ABC):
    """One class of image models: its places, how it is called, its conditions and its example inputs.

    Attributes:
        image_model_class: diffusers' class.
        family: its kind.
        given: names in the model's `forward` that the video model gives itself.
        refused: why there is nothing of a kind that layers go to.
        instead: what to choose then.
        listed: arguments that are lists of one tensor for each picture.
        layered: arguments that are one tensor for each of several layers.
        text_tokens: that a prompt is padded to.
        fractions: whether its time steps lie between 0 and 1.
        without_memory: whether it can be called on the meta device.
        native_cells: height and width that the model was made for, where its config does not say.
    """

    image_model_class: ClassVar[type[Any]]
    family: ClassVar[Literal["UNet", "transformer"]]
    given: ClassVar[tuple[str, ...]]
    refused: ClassVar[dict[Where, str]]
    instead: ClassVar[str]
    listed: ClassVar[tuple[str, ...]] = ()
    layered: ClassVar[tuple[str, ...]] = ()
    text_tokens: ClassVar[int] = 77
    native_cells: ClassVar[int] = 64
    fractions: ClassVar[bool] = False
    without_memory: ClassVar[bool] = True

    @abstractmethod
    def places(self, image_model: nn.Module) -> Iterator[Place]:
        """Where temporal layers may go, in the order in which they are made."""

    def reasons(self, image_model: nn.Module) -> dict[Where, str]:
        """Why there is nothing of a kind in this very model, by what is missing."""
        return self.refused

    def check_scheme(self, image_model: nn.Module, scheme: Scheme) -> None:
        """`InputError` where the scheme has places and no meaning in this model."""
        return

    def channels(self, config: Mapping[str, Any]) -> int:
        """Channels of a picture that a model of this config takes."""
        return int(config.get("in_channels") or 4)

    @abstractmethod
    def in_channels(self, image_model: nn.Module) -> int:
        """Channels of a picture that this very model takes."""

    @abstractmethod
    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """The model's answer for pictures (N, C, H, W), its `sample` being (N, C', H, W).

        Raises:
            InputError: a size or an argument that the model cannot take, or one that is missing.
        """

    @abstractmethod
    def random_inputs(
        self, image_model: nn.Module, batch: int, size: tuple[int, int], generator: torch.Generator | None
    ) -> dict[str, Any]:
        """`sample`, `timestep` and all arguments that `call` needs for `batch` pictures, each with its own values.

        Raises:
            InputError: the config asks for a condition that is not known.
        """

    @abstractmethod
    def patch_size(self, config: Mapping[str, Any]) -> int:
        """Height and width, in latent cells, of what is one token; 1 where there are none."""

    def text_tokens_of(self, config: Mapping[str, Any]) -> int:
        """Tokens that a prompt is padded to for a model of this config."""
        return self.text_tokens

    def sample_size(self, config: Mapping[str, Any]) -> tuple[int, int] | None:
        """Height and width that the model was made for; None where the config does not say."""
        size = config.get("sample_size")
        if size is None:
            return None
        return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def model_timestep(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """A scheduler's time step, of a thousand, as the model takes it; `dtype` is that of its pictures."""
        return timestep.to(dtype) / NUM_TIMESTEPS if self.fractions else timestep

    def picture_tokens(
        self, image_model: nn.Module, size: tuple[int, int], num_pictures: int, arguments: Mapping[str, Any]
    ) -> PictureTokens | None:
        """Where the picture's tokens are at the sites that have others beside them, in a call with pictures of `size`.

        None where no site has.
        """
        return None

    def unpatch(self, features: Tensor, image_model: nn.Module, size: tuple[int, int]) -> Tensor:
        """Answers of the last projection, (N, tokens, features), as pictures of `size`, (N, C, H, W)."""
        raise AssertionError(f"{type(image_model).__name__} has no tokens to answer")

    def gather_frames(self, arguments: dict[str, Any], num_frames: int) -> dict[str, Any]:
        """An attention's arguments, the tokens of all frames of a video in one sequence: (B*F, n, D) as (B, F*n, D).

        In joint attention each frame brings its own copy of the text, so that the text keeps its share of the tokens;
        with equal frames every token then sees what it saw in one. Masks of keys and tables of rotary positions follow.
        """
        text = arguments.get("encoder_hidden_states")
        gathered = {}
        for name, value in arguments.items():
            if isinstance(value, Tensor):
                gathered[name] = (
                    _mask_of_all(value, num_frames) if name == "attention_mask" else _in_row(value, num_frames)
                )
            elif name == "image_rotary_emb" and value is not None:
                gathered[name] = self.rotary_tables_of_all(value, 0 if text is None else text.shape[1], num_frames)
            else:
                gathered[name] = value
        return gathered

    def rotary_tables_of_all(self, tables: tuple[Tensor, ...], num_text: int, num_frames: int) -> tuple[Tensor, ...]:
        """Tables (n, d) that all pictures share, each of the text's `num_text` places and then the picture's."""
        return tuple(
            torch.cat([table[:num_text].repeat(num_frames, 1), table[num_text:].repeat(num_frames, 1)])
            for table in tables
        )


def _in_row(value: Tensor, num_frames: int) -> Tensor:
    return value.unflatten(0, (-1, num_frames)).flatten(1, 2)


def _mask_of_all(mask: Tensor, num_frames: int) -> Tensor:
    if mask.ndim == 3 and mask.shape[1] == 1:
        return _in_row(mask.transpose(1, 2), num_frames).transpose(1, 2)
    if mask.ndim == 2:
        return _in_row(mask, num_frames)
    raise InputError(
        "attention over all frames takes an attention mask of keys only, shape (frames, 1, tokens), "
        f"got {tuple(mask.shape)}"
    )
