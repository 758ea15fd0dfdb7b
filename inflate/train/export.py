"""Writing trained diffusers models as small folders."""

from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import save_file

from inflate.components import DIFFUSERS_STEM


def save_half(model: ModelMixin, folder: Path) -> None:
    """``config.json`` and ``diffusion_pytorch_model.safetensors`` in float16, leaving ``model`` as it is.

    (``model.to(float16)`` would round the weights in place, and training may go on with them.)
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    weights = {
        name: value.detach().to("cpu", torch.float16 if value.is_floating_point() else value.dtype).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, folder / f"{DIFFUSERS_STEM}.safetensors", metadata={"format": "pt"})
