"""VideoMAE's features of clips, as cd-fvd takes them (arXiv:2404.12391): from a transformers folder, or its own file.

The classifier's input: all tokens' mean through the last layer norm. cd-fvd scales bytes to [0, 1] and does no more,
though VideoMAE was trained on ImageNet's mean and deviation; both are offered, and are different measures.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inflate.checkpoint.hub import download, is_hub_name
from inflate.errors import InputError, nearest
from inflate.evaluate.scripted import resized_to
from inflate.evaluate.weights import Weights, read_state, weights_of

_PREPROCESSING = ("cd-fvd", "imagenet")
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GIANT = 1408  # wide, with 16 heads; the other sizes have 64 columns a head
_HEAD = 64
_FRAMES, _SIDE = 16, 224
_OUTSIDE = {
    "patch_embed.proj.weight": "videomae.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "videomae.embeddings.patch_embeddings.projection.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
# What VideoMAE's authors call a block's parts, and what transformers does.
_PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


class VideoMae:
    """``(B, F, H, W, 3)`` uint8 to ``(B, D)``; F must be what the network was made for, mostly 16.

    Raises:
        InputError: nothing there, or no VideoMAE that was tuned to classify.
    """

    name = "videomae"

    def __init__(
        self,
        source: str,
        preprocessing: str = "cd-fvd",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if preprocessing not in _PREPROCESSING:
            raise InputError(
                f"--preprocessing is {preprocessing!r}{nearest(preprocessing, _PREPROCESSING)}; for VideoMAE use "
                "cd-fvd, which is its published measure, or imagenet"
            )
        path = Path(source)
        if not path.exists() and is_hub_name(source):
            path = download(source)
        self.weights: Weights = weights_of(path, source if is_hub_name(source) else "")
        self.published = self.weights.published == "vit_g_hybrid_pt_1200e_ssv2_ft.pth"
        model: Any = _from_folder(path) if path.is_dir() else _from_file(path)
        self.model = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.preprocessing, self.device, self.dtype = preprocessing, torch.device(device), dtype

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> Tensor:
        """Features of clips, float32 on the CPU."""
        config = self.model.config
        if clips.shape[1] != config.num_frames:
            raise InputError(
                f"this VideoMAE takes clips of {config.num_frames} frames, got {clips.shape[1]}; set --frames"
            )
        pixels = resized_to(clips, config.image_size) / 255
        if self.preprocessing == "imagenet":
            pixels = (pixels - torch.tensor(_MEAN)) / torch.tensor(_DEVIATION)
        inputs = pixels.permute(0, 1, 4, 2, 3).to(self.device, self.dtype)
        tokens = self.model.videomae(inputs).last_hidden_state
        return self.model.fc_norm(tokens.mean(1)).float().cpu()


def _from_folder(folder: Path) -> Any:
    from transformers import VideoMAEForVideoClassification

    try:
        loaded: Any = VideoMAEForVideoClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model, report = loaded
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{folder} is no VideoMAE classifier in transformers' layout ({str(error).splitlines()[0]}); name one, or "
            "cd-fvd's vit_g_hybrid_pt_1200e_ssv2_ft.pth"
        ) from error
    missing: list[str] = [key for key in sorted(report["missing_keys"]) if not key.startswith("classifier.")]
    if missing or model.fc_norm is None:
        what = missing[0] if missing else "fc_norm"
        raise InputError(f"{folder} lacks {what}: FVD's VideoMAE is one that was tuned to classify, with mean pooling")
    return model


def _from_file(path: Path) -> Any:
    """VideoMAE's own layout of a classifier of 16 frames of 224 x 224 px."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    state = read_state(path)
    try:
        width, _, tubelet, patch, _ = state["patch_embed.proj.weight"].shape
        config: Any = VideoMAEConfig(
            image_size=_SIDE,
            patch_size=patch,
            num_frames=_FRAMES,
            tubelet_size=tubelet,
            hidden_size=width,
            num_hidden_layers=1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
            num_attention_heads=16 if width == _GIANT else width // _HEAD,
            intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0],
            layer_norm_eps=1e-6,
            use_mean_pooling=True,
        )
        config.num_labels = state["head.weight"].shape[0]
        model: Any = VideoMAEForVideoClassification(config)
        model.load_state_dict(_renamed(state, set(model.state_dict())))
    except (KeyError, ValueError, RuntimeError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} holds no VideoMAE classifier ({reason}); name cd-fvd's file") from error
    # transformers gives the last norm torch's own 1e-5, VideoMAE all of them 1e-6.
    model.fc_norm.eps = 1e-6
    return model


def _renamed(state: dict[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """transformers' names; ``expected`` tells how its version calls the biases of queries and values."""
    made = {}
    for key, value in state.items():
        if not key.startswith("blocks."):
            made[_OUTSIDE.get(key, key)] = value
            continue
        _, number, part = key.split(".", 2)
        block = f"videomae.encoder.layer.{number}."
        if part == "attn.qkv.weight":
            for name, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                made[f"{block}attention.attention.{name}.weight"] = rows
        elif part in ("attn.q_bias", "attn.v_bias"):
            old, new = part.removeprefix("attn."), "query.bias" if part == "attn.q_bias" else "value.bias"
            name = new if f"{block}attention.attention.{new}" in expected else old
            made[f"{block}attention.attention.{name}"] = value
        else:
            name, _, kind = part.rpartition(".")
            made[f"{block}{_PARTS[name]}.{kind}"] = value
    return made
