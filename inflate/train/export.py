"""Writing trained diffusers models as small folders."""

from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import save_file

from inflate.checkpoint.narrowing import narrowed
from inflate.components import DIFFUSERS_STEM


def save_half(model: ModelMixin, folder: Path) -> None:
    """``config.json`` and ``diffusion_pytorch_model.safetensors`` in float16, which ends at 65504 (tensors with numbers
    beyond it stay as they are, and that is said), leaving ``model`` as it is.

    (``model.to(float16)`` would round the weights in place, and training may go on with them.)
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    weights = narrowed(model.state_dict(), torch.float16)
    save_file(weights, folder / f"{DIFFUSERS_STEM}.safetensors", metadata={"format": "pt"})
