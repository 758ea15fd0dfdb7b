"""Our CLIP's text tower as transformers' ``CLIPTextModel`` and ``CLIPTokenizer``, which Stable Diffusion reads."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from inflate.checkpoint.narrowing import narrowed
from inflate.components import read_plain, read_whole
from inflate.errors import InputError
from inflate.models.clip import TextImageEncoder

# open_clip's name inside a block -> transformers' name; the fused projection of queries, keys and values is split.
_BLOCK = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
# transformers 5 leaves this prefix out of the model's names, writes files without it and reads both; 4 reads this only.
_PREFIX = "text_model."
START, END, PADDING = "<|startoftext|>", "<|endoftext|>", "!"


def convert_text_encoder(clip: TextImageEncoder, extra_layers: int = 0) -> CLIPTextModel:
    """The text tower with the same weights: hidden states (B, T, D) after the last layer norm are the same numbers.

    Args:
        clip: our encoder.
        extra_layers: blocks added on top. They add nothing at first, because what they write is zero.
    """
    size = clip.config
    config = CLIPTextConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.text_width,
        intermediate_size=4 * size.text_width,
        projection_dim=size.embed_dim,
        num_hidden_layers=size.text_layers + extra_layers,
        num_attention_heads=size.text_heads,
        max_position_embeddings=size.context_length,
        hidden_act="gelu",  # open_clip's blocks have the exact one
        bos_token_id=size.vocab_size - 2,
        eos_token_id=size.vocab_size - 1,
        pad_token_id=0,
    )
    model = CLIPTextModel(config)
    weights = {name.removeprefix(_PREFIX): value for name, value in model.state_dict().items()}
    weights |= _converted(dict(clip.model.state_dict()), size.text_layers)
    for number in range(size.text_layers, size.text_layers + extra_layers):
        for last in ("self_attn.out_proj", "mlp.fc2"):
            for kind in ("weight", "bias"):
                weights[f"encoder.layers.{number}.{last}.{kind}"].zero_()
    load_text_weights(model, weights)
    return model.eval()


def load_text_weights(model: CLIPTextModel, weights: dict[str, Tensor]) -> None:
    """Put ``weights`` in, whichever of the two spellings of transformers 4 and 5 the names have."""
    own = {name.removeprefix(_PREFIX): name for name in model.state_dict()}
    model.load_state_dict({own[name.removeprefix(_PREFIX)]: value.float() for name, value in weights.items()})


def _converted(found: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    made = {
        "embeddings.token_embedding.weight": found["token_embedding.weight"],
        "embeddings.position_embedding.weight": found["positional_embedding"],
        "final_layer_norm.weight": found["ln_final.weight"],
        "final_layer_norm.bias": found["ln_final.bias"],
    }
    for number in range(layers):
        source, target = f"transformer.resblocks.{number}", f"encoder.layers.{number}"
        for kind in ("weight", "bias"):
            for old, new in _BLOCK.items():
                made[f"{target}.{new}.{kind}"] = found[f"{source}.{old}.{kind}"]
            for name, part in zip("qkv", found[f"{source}.attn.in_proj_{kind}"].chunk(3), strict=True):
                made[f"{target}.self_attn.{name}_proj.{kind}"] = part
    return made


def write_tokenizer(clip: TextImageEncoder, folder: Path) -> None:
    """``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``: the same token numbers as our own tokenizer's.

    Padding is "!", number 0, as Stable Diffusion 2 has it and as our encoder was trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, int] = dict(clip.tokenizer.encoder)
    special = sorted(known, key=lambda token: known[token])[-2:]
    numbers = {**{token: n for token, n in known.items() if token not in special}}
    numbers |= {START: known[special[0]], END: known[special[1]]}
    config: dict[str, Any] = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": clip.config.context_length,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": PADDING,
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *clip.merges]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_tokenizer(folder: str | Path) -> CLIPTokenizer:
    """The tokenizer of a folder that :func:`write_tokenizer` made."""
    if not (Path(folder) / "vocab.json").is_file():
        raise InputError(f"{folder} has no vocab.json; it is no CLIP tokenizer's folder.")
    return read_plain(CLIPTokenizer, Path(folder))


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token numbers (B, T) as Stable Diffusion's pipeline makes them: cut or padded to the tokenizer's length."""
    length = int(tokenizer.model_max_length)
    made = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return torch.as_tensor(made.input_ids)


def write_text_encoder(model: CLIPTextModel, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """``config.json`` and ``model.safetensors``, with names that transformers 4 and 5 both read."""
    folder.mkdir(parents=True, exist_ok=True)
    # transformers 5 opens a model in the config's dtype, and diffusers the rest of a pipeline in float32 unless told.
    config = model.config.to_dict() | {"architectures": ["CLIPTextModel"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = narrowed({_PREFIX + k.removeprefix(_PREFIX): one for k, one in model.state_dict().items()}, dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_text_encoder(folder: str | Path) -> CLIPTextModel:
    """The text encoder of a pipeline's folder, float32, in evaluation mode."""
    if not (Path(folder) / "model.safetensors").is_file():
        raise InputError(f"{folder} has no model.safetensors; it is no text encoder's folder.")
    return read_whole(CLIPTextModel, Path(folder), {"dtype": torch.float32}).eval()
