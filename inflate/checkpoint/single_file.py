"""Image models in one file, in their makers' layouts: recognised by names and shapes, renamed by diffusers.

The file may be a whole checkpoint, whose text encoders and autoencoder are left alone, or hold the image model only,
its names bare or with the prefix of whole checkpoints. What the layout's config cannot know of a checkpoint made from
it (input channels of an inpainting model, blocks of another size) is read off the shapes.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
    infer_diffusers_model_type,
)
from torch import Tensor

from inflate.checkpoint.flux_layout import rename_flux
from inflate.checkpoint.noise_flags import FLAGS, NoiseFlags, noise_flags
from inflate.checkpoint.quantised import plain_weights, refuse_packed
from inflate.errors import InputError, a

PREFIX = "model.diffusion_model."  # of the image model in a whole checkpoint
_AVERAGES = "model_ema."
_WRAPPERS = frozenset({"model", "diffusion_model", "unet", "transformer", "module", "_orig_mod", "state_dict"})
CONFIGS = Path(__file__).resolve().parent / "configs"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """Checkpoints of one architecture: how people call it, and its config in `configs/`."""

    name: str
    config_name: str

    def config(self) -> dict[str, Any]:
        """The config, as diffusers writes it."""
        return json.loads((CONFIGS / f"{self.config_name}.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Layout:
    """One way of naming the weights of an image model.

    `choose` names the family and what its config must say otherwise, or None if no config is carried for the shapes.
    `rename` answers the weights under diffusers' names, and the names of those it had no use for.
    """

    marks: tuple[str, ...]  # all are in a file of this layout, and not in others
    image_model_class: str | None  # None: any that inflate knows
    choose: Callable[[Shapes], tuple[Family, dict[str, Any]] | None]
    rename: Callable[[dict[str, Tensor], dict[str, Any]], tuple[dict[str, Tensor], list[str]]]


@dataclass(frozen=True)
class SingleFile:
    """How one file is to be read."""

    path: Path
    layout: Layout = field(repr=False)
    prefix: str
    config_file: Path | None  # the user's; None if `family` was recognised
    family: str  # "" if the user gave a config
    noise: NoiseFlags = field(default_factory=NoiseFlags)

    @property
    def config_name(self) -> str:
        """What to call the config in a sentence."""
        return f"the config of {self.family}" if self.config_file is None else str(self.config_file)

    def own(self, names: Iterable[str]) -> list[str]:
        """Those of a file's names that belong to the image model."""
        return [name for name in names if name.startswith(self.prefix) and name not in FLAGS]

    def to_diffusers(self, tensors: Mapping[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
        """The image model's weights under diffusers' names; tensors on the meta device will do for names and shapes.

        Raises:
            InputError: weights are missing, or some are there that the image model has no place for.
        """
        own = {name.removeprefix(self.prefix): tensors[name] for name in self.own(tensors)}
        own = plain_weights(self.path, own)
        try:
            renamed, unused = self.layout.rename(own, config)
        except KeyError as error:
            raise InputError(f"{self.path} does not fit {self.config_name}: {error.args[0]!r} is missing") from error
        except (RuntimeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.path} does not fit {self.config_name}: {reason}") from error
        if unused:
            raise InputError(
                f"{self.path} does not fit {self.config_name}: it has no place for {unused[0]!r}"
                f"{f' and {len(unused) - 1} more' if unused[1:] else ''}; give the right one with --config (config=)"
            )
        return renamed


def recognise(
    path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None
) -> tuple[SingleFile, dict[str, Any]]:
    """How to read the file `path` with weights of `shapes` and such `metadata`, and the config of its image model.

    Raises:
        InputError: of no layout or family known here.
    """
    layout, prefix, own = _layout(path, shapes)
    try:
        chosen = layout.choose(own)
    except (IndexError, KeyError, ValueError, ZeroDivisionError):  # shapes that no such model has
        chosen = None
    if chosen is None:
        raise InputError(
            f"{path} is of a family whose config inflate does not carry; "
            "name a config.json that describes its image model with --config (config=)"
        )
    family, changes = chosen
    noise = noise_flags(shapes, metadata or {})
    return SingleFile(path, layout, prefix, None, family.name, noise), {**family.config(), **changes}


def recognise_layout(
    path: Path, shapes: Shapes, config_file: Path, class_name: str, metadata: Mapping[str, str] | None = None
) -> SingleFile:
    """How to read the file `path` as a model of the user's own config; `InputError` if it is of another layout."""
    layout, prefix, _ = _layout(path, shapes)
    if layout.image_model_class not in (None, class_name):
        raise InputError(
            f"{path} holds {a(layout.image_model_class or class_name)}, and {config_file} describes {a(class_name)}"
        )
    return SingleFile(path, layout, prefix, config_file, "", noise_flags(shapes, metadata or {}))


def _prefixes(shapes: Shapes) -> list[str]:
    """What may stand before a network's names: what its trainer wrapped it in, or its place in a pipeline."""
    if any(name.startswith(PREFIX) for name in shapes):
        return [PREFIX]
    found = {""}
    for name in shapes:
        parts = name.split(".")
        wrapped = next((number for number, part in enumerate(parts) if part not in _WRAPPERS), len(parts))
        found |= {".".join(parts[:count]) + "." for count in range(1, wrapped + 1)}
    return sorted(found, key=len)


def _layout(path: Path, shapes: Shapes) -> tuple[Layout, str, dict[str, tuple[int, ...]]]:
    for prefix in _prefixes(shapes):
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        for layout in LAYOUTS:
            if all(mark in own for mark in layout.marks):
                refuse_packed(path, own)
                return layout, prefix, own
    refuse_packed(path, shapes)
    if any(name.startswith(_AVERAGES) for name in shapes):
        raise InputError(
            f"{path} holds the average (EMA) of an image model alone, whose names ({_AVERAGES}…) have lost their dots; "
            "get the file that has the weights themselves"
        )
    known = ", ".join(family.name for family in FAMILIES)
    try:
        guess = infer_diffusers_model_type({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    except (KeyError, IndexError):  # a few names of a known kind, without those that tell which
        guess = "v1"
    # diffusers takes what it does not know for "v1", which is a layout of ours and would have been found.
    looks = f" (it looks like {guess!r} to diffusers)" if guess != "v1" else ""
    raise InputError(f"{path} holds no image model that inflate knows{looks}; single files may be of {known}")


SD15 = Family("Stable Diffusion 1.x", "sd15_unet")
SD21 = Family("Stable Diffusion 2.x", "sd21_unet")
SD21_UNCLIP = Family("Stable Diffusion 2.1 unCLIP", "sd21_unclip_unet")
SDXL = Family("Stable Diffusion XL", "sdxl_unet")
SD_X4_UPSCALER = Family("the Stable Diffusion x4 upscaler", "sd_x4_upscaler_unet")
SD3 = Family("Stable Diffusion 3", "sd3_medium_transformer")
FLUX1 = Family("FLUX.1", "flux1_dev_transformer")
FAMILIES = (SD15, SD21, SD21_UNCLIP, SDXL, SD_X4_UPSCALER, SD3, FLUX1)

# By channels of the first block, width of the text, and how a class, a size or an image is given beside it.
_UNETS: dict[tuple[int, int, str], Family] = {
    (320, 768, ""): SD15,
    (320, 1024, ""): SD21,
    (320, 1024, "vector"): SD21_UNCLIP,
    (320, 2048, "vector"): SDXL,
    (256, 1024, "class"): SD_X4_UPSCALER,
}


def _choose_ldm_unet(shapes: Shapes) -> tuple[Family, dict[str, Any]] | None:
    return _choose_unet(
        shapes, "input_blocks.0.0.weight", "out.2.weight", ("label_emb.0.0.weight",), "label_emb.weight"
    )


def _choose_diffusers_model(shapes: Shapes) -> tuple[Family, dict[str, Any]] | None:
    vectors = ("add_embedding.linear_1.weight", "class_embedding.linear_1.weight")
    if "conv_in.weight" not in shapes or "conv_out.weight" not in shapes:
        return None
    return _choose_unet(shapes, "conv_in.weight", "conv_out.weight", vectors, "class_embedding.weight")


def _choose_unet(
    shapes: Shapes, first: str, last: str, vectors: tuple[str, ...], classes: str
) -> tuple[Family, dict[str, Any]] | None:
    text = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    kind = "vector" if any(name in shapes for name in vectors) else "class" if classes in shapes else ""
    family = _UNETS.get((shapes[first][0], text, kind))
    if family is None:
        return None
    changes: dict[str, Any] = {"in_channels": shapes[first][1], "out_channels": shapes[last][0]}
    if kind == "class":
        changes["num_class_embeds"] = shapes[classes][0]
    return family, changes


def _choose_sd3(shapes: Shapes) -> tuple[Family, dict[str, Any]] | None:
    blocks, patch = _blocks(shapes, "joint_blocks"), shapes["x_embedder.proj.weight"]
    qk_norm = shapes.get("joint_blocks.0.x_block.attn.ln_q.weight")
    known, positions = SD3.config(), isqrt(shapes["pos_embed"][1])
    head = qk_norm[0] if qk_norm else known["attention_head_dim"]
    return SD3, {
        "sample_size": min(known["sample_size"], positions * patch[2]),
        "num_layers": len(blocks),
        "num_attention_heads": patch[0] // head,
        "attention_head_dim": head,
        "in_channels": patch[1],
        "patch_size": patch[2],
        "out_channels": shapes["final_layer.linear.weight"][0] // patch[2] ** 2,
        "caption_projection_dim": shapes["context_embedder.weight"][0],
        "joint_attention_dim": shapes["context_embedder.weight"][1],
        "pooled_projection_dim": shapes["y_embedder.mlp.0.weight"][1],
        "pos_embed_max_size": positions,
        "qk_norm": "rms_norm" if qk_norm else None,
        "dual_attention_layers": [i for i in blocks if f"joint_blocks.{i}.x_block.attn2.qkv.weight" in shapes],
    }


def _choose_flux(shapes: Shapes) -> tuple[Family, dict[str, Any]] | None:
    return FLUX1, {
        "num_layers": len(_blocks(shapes, "double_blocks")),
        "num_single_layers": len(_blocks(shapes, "single_blocks")),
        "guidance_embeds": "guidance_in.in_layer.weight" in shapes,
        "in_channels": shapes["img_in.weight"][1],
        "out_channels": shapes["final_layer.linear.weight"][0],
    }


def _blocks(shapes: Shapes, name: str) -> list[int]:
    return sorted({int(key.split(".")[1]) for key in shapes if key.startswith(name + ".")})


def _rename_ldm_unet(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    # diffusers' function leaves out what it does not know, takes no note, and wants these keys and the prefix.
    config = {"class_embed_type": None, "addition_embed_type": None, "num_class_embeds": None, **config}
    renamed = convert_ldm_unet_checkpoint({PREFIX + name: tensor for name, tensor in tensors.items()}, config)
    used = {id(tensor) for tensor in renamed.values()}
    return renamed, [name for name, tensor in tensors.items() if id(tensor) not in used]


def _rename_sd3(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    left = dict(tensors)
    return convert_sd3_transformer_checkpoint_to_diffusers(left), list(left)  # it takes out what it has used


def _rename_flux(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    return rename_flux(tensors)


def _keep(tensors: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    return tensors, []


LAYOUTS = (
    Layout(
        ("input_blocks.0.0.weight", "time_embed.0.weight", "output_blocks.0.0.in_layers.0.weight", "out.2.weight"),
        "UNet2DConditionModel",
        _choose_ldm_unet,
        _rename_ldm_unet,
    ),
    Layout(
        (
            "joint_blocks.0.x_block.attn.qkv.weight",
            "x_embedder.proj.weight",
            "context_embedder.weight",
            "pos_embed",
            "y_embedder.mlp.0.weight",
            "final_layer.linear.weight",
        ),
        "SD3Transformer2DModel",
        _choose_sd3,
        _rename_sd3,
    ),
    Layout(
        (
            "double_blocks.0.img_mod.lin.weight",
            "single_blocks.0.linear1.weight",
            "img_in.weight",
            "vector_in.in_layer.weight",
            "final_layer.linear.weight",
        ),
        "FluxTransformer2DModel",
        _choose_flux,
        _rename_flux,
    ),
    # diffusers' own layout, without the folder: a UNet, or a transformer of any kind.
    Layout(
        ("conv_in.weight", "time_embedding.linear_1.weight", "conv_out.weight"), None, _choose_diffusers_model, _keep
    ),
    Layout(("transformer_blocks.0.attn1.to_q.weight",), None, _choose_diffusers_model, _keep),
    Layout(("transformer_blocks.0.attn.to_q.weight",), None, _choose_diffusers_model, _keep),
)
