"""Pixels to latents and back, for the autoencoders that image models come with."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inflate.bases.parts import part_class, parts_fingerprint, read_part
from inflate.errors import InputError, a

_CLASSES = ("AutoencoderKL", "AutoencoderDC", "VQModel")
_PICTURES_AT_ONCE = 4
_SMALLEST_MULTIPLE = 8  # pixels
_BY_CONVOLUTION = {"DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D"}


def encode_pixels(vae: Any, pixels: Tensor) -> Tensor:
    """Pixels (N, 3, H, W) in [-1, 1] -> latents (N, c, h, w) of about unit variance; the mean where the VAE has one."""
    encoded = vae.encode(pixels.to(vae.dtype))
    if hasattr(encoded, "latents"):
        return encoded.latents  # Kandinsky's MoVQ knows no scaling factor
    latents = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (latents - shift) * vae.config.scaling_factor


def decode_pictures(vae: Any | None, latents: Tensor) -> Tensor:
    """Latents (N, c, h, w) -> pixels (N, 3, H, W), float32, differentiable and not clipped; None returns pixels."""
    if vae is None:
        return latents.float()
    if type(vae).__name__ == "VQModel":
        return vae.decode(latents.to(vae.dtype), force_not_quantize=True).sample.float()
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return vae.decode((latents / vae.config.scaling_factor + shift).to(vae.dtype)).sample.float()


def latent_channels(config: Mapping[str, Any]) -> int:
    """Channels of an autoencoder's latents, told from its config."""
    return int(config.get("latent_channels") or 4)


def pixels_per_cell(config: Mapping[str, Any]) -> int:
    """Height and width of a latent cell in pixels, told from an autoencoder's config."""
    blocks = config.get("encoder_block_out_channels") or config.get("block_out_channels") or [0]
    return 2 ** (len(blocks) - 1)


def size_multiple(network: Mapping[str, Any], vae: Mapping[str, Any], patch: int = 1) -> int:
    """What both sides of a frame must be multiples of, in pixels, told from the configs of network and autoencoder.

    At least 8. A ``UNet2DConditionModel`` that halves by convolutions brings odd sizes back to what they were; in
    others sides are halved as often as there are levels. ``patch``: latent cells along a side of a token.
    """
    levels, blocks = len(network.get("block_out_channels") or [0]), set(network.get("down_block_types") or [])
    restored = "cross_attention_dim" in network and blocks <= _BY_CONVOLUTION
    halved = 1 if restored else 2 ** (levels - 1)
    return math.lcm(_SMALLEST_MULTIPLE, pixels_per_cell(vae) * patch * halved)


class Autoencoder:
    """An autoencoder in its folder, or none at all for models of pixels.

    Attributes:
        channels: of the latents; 3 without an autoencoder.
        factor: pixels per latent cell; 1 without.
    """

    def __init__(
        self, folder: Path | None, config: Mapping[str, Any] | None = None, variant: str | None = None
    ) -> None:
        """``config`` is the autoencoder's own, of which ``folder`` None has none."""
        self.folder, self.config, self.variant = folder, dict(config or {}), variant
        self.channels = 3 if folder is None else latent_channels(self.config)
        self.factor = 1 if folder is None else pixels_per_cell(self.config)
        self.vae: Any | None = None

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring it into memory, onto ``device`` as ``dtype``, or as float32 where it overflows in float16.

        Raises:
            InputError: the folder holds something else, or is damaged.
        """
        if self.folder is None:
            return
        vae = self.vae
        if vae is None:
            library, name = part_class(self.folder)
            if name not in _CLASSES:
                raise InputError(f"{self.folder} is {a(name)}; an autoencoder must be one of {', '.join(_CLASSES)}.")
            vae = read_part(self.folder, library, name, dtype, self.variant).eval().requires_grad_(False)
        upcast = dtype == torch.float16 and vae.config.get("force_upcast", False)
        wanted = torch.float32 if upcast else dtype
        if vae.dtype != wanted:
            torch.nn.Module.to(vae, dtype=wanted)  # diffusers' own `to` warns of a list that is empty here
        self.vae = vae.to(device=device)

    def release(self) -> None:
        """Let go of it; :meth:`load` reads it again."""
        self.vae = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def fingerprint(self) -> str:
        """Of its files; nothing is loaded."""
        return parts_fingerprint({} if self.folder is None else {"vae": self.folder}, "mode", self.variant)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, H, W) in [-1, 1] -> latents (N, c, h, w), float32, shifted and scaled: the mode, never a draw.

        One by one, so that a picture's latents are the same in any company, to the last bit.
        """
        if self.folder is None:
            return pixels.float()
        height, width = pixels.shape[-2:]
        if height % self.factor or width % self.factor:
            raise InputError(
                f"The autoencoder takes heights and widths that {self.factor} divides, got {height} x {width}."
            )
        vae = self._loaded()
        with torch.no_grad():
            return torch.cat([encode_pixels(vae, one.to(vae.device)).float() for one in pixels.split(1)])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, c, h, w) -> pixels (N, 3, H, W), float32, not clipped."""
        if self.folder is None:
            return latents.float()
        vae = self._loaded()
        with torch.no_grad():
            parts = [decode_pictures(vae, part.to(vae.device)) for part in latents.split(_PICTURES_AT_ONCE)]
        return torch.cat(parts)

    def _loaded(self) -> Any:
        assert self.vae is not None, "load() comes first"
        return self.vae
