"""Parts of people's models: weights that are missing are refused by name, whatever the libraries would make up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from inflate.bases.parts import read_part
from inflate.errors import InputError

TEXT = CLIPTextConfig(
    hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=20, projection_dim=6
)
VISION = CLIPVisionConfig(
    hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
)
UNET = {
    "block_out_channels": (8,),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "sample_size": 8,
}
# Each kind of part -> how to make one, and the library that indices name.
MAKERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "text encoder": ("transformers", lambda: CLIPTextModel(TEXT)),
    "text encoder with projection": ("transformers", lambda: CLIPTextModelWithProjection(TEXT)),
    "T5": (
        "transformers",
        lambda: T5EncoderModel(T5Config(d_model=8, d_ff=16, num_layers=2, num_heads=2, vocab_size=20, d_kv=4)),
    ),
    "image encoder": ("transformers", lambda: CLIPVisionModelWithProjection(VISION)),
    "VAE": (
        "diffusers",
        lambda: AutoencoderKL(
            block_out_channels=(8,),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
        ),
    ),
    "UNet": (
        "diffusers",
        lambda: UNet2DConditionModel(
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=8,
            **UNET,
        ),
    ),
    "UNet without text": (
        "diffusers",
        lambda: UNet2DModel(down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), **UNET),
    ),
    "prior": (
        "diffusers",
        lambda: PriorTransformer(num_attention_heads=2, attention_head_dim=4, num_layers=1, embedding_dim=8),
    ),
    "text projection": (
        "unclip",
        lambda: UnCLIPTextProjModel(clip_embeddings_dim=8, time_embed_dim=8, cross_attention_dim=8),
    ),
}
Edit = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def edited(folder: Path, part: Any, edit: Edit) -> Path:
    """A part's folder whose weights were changed on disk."""
    part.save_pretrained(folder)
    path = next(folder.glob("*.safetensors"))
    save_file({name: one.clone() for name, one in edit(load_file(path)).items()}, path, metadata={"format": "pt"})
    return folder


def read(kind: str, folder: Path, part: Any) -> Any:
    return read_part(folder, MAKERS[kind][0], type(part).__name__, torch.float32)


@pytest.mark.parametrize("kind", MAKERS)
def test_weights_that_are_missing_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    part = MAKERS[kind][1]()
    names = sorted(name for name in load_file(next(edited(tmp_path / "whole", part, dict).glob("*.safetensors"))))
    whole = read(kind, tmp_path / "whole", part).state_dict()
    assert all(torch.equal(whole[name], value) for name, value in part.state_dict().items())
    for gone in (names[0], names[len(names) // 2], names[-1]):
        folder = edited(tmp_path / gone, part, lambda found, gone=gone: {n: v for n, v in found.items() if n != gone})
        with pytest.raises(InputError, match=r"they lack .*; copy the folder again") as caught:
            read(kind, folder, part)
        # transformers spells some names without the first word.
        assert gone.removeprefix("text_model.").removeprefix("vision_model.").split(".", 1)[-1] in str(caught.value)
        assert "\n" not in str(caught.value)


def test_many_missing_weights_are_counted_and_another_model_is_told(tmp_path: Path) -> None:
    part = MAKERS["text encoder"][1]()
    folder = edited(tmp_path / "part", part, lambda found: {f"other.{name}": value for name, value in found.items()})
    with pytest.raises(InputError, match=r"they lack .* and \d+ more, and have 'other.*', which it has no place for"):
        read("text encoder", folder, part)


def _old_attention(found: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, value in found.items():
        for new, old in names.items():
            name = name.replace(new, old)
        renamed[name] = value
    assert any(".proj_attn." in name for name in renamed)
    return renamed


NOT_MISSING: dict[str, tuple[str, Edit]] = {
    "names of an old release": ("VAE", _old_attention),
    "tied weights under the other name": (
        "T5",
        lambda found: {name.replace("shared.", "encoder.embed_tokens."): value for name, value in found.items()},
    ),
    "names without the first word": (
        "text encoder",
        lambda found: {name.removeprefix("text_model."): value for name, value in found.items()},
    ),
    "a buffer of old releases": (
        "text encoder",
        lambda found: found | {"text_model.embeddings.position_ids": torch.arange(77)[None]},
    ),
    "a projection that is not used": (
        "text encoder",
        lambda found: found | {"text_projection.weight": torch.ones(6, 8)},
    ),
}


@pytest.mark.parametrize("case", NOT_MISSING)
def test_what_the_libraries_know_to_read_is_not_refused(tmp_path: Path, case: str) -> None:
    kind, edit = NOT_MISSING[case]
    part = MAKERS[kind][1]()
    found = read(kind, edited(tmp_path / "part", part, edit), part).state_dict()
    assert all(torch.equal(found[name], value) for name, value in part.state_dict().items())


@pytest.mark.parametrize("kind", ["text encoder", "VAE"])
def test_a_missing_file_and_a_pointer_to_one(tmp_path: Path, kind: str) -> None:
    part = MAKERS[kind][1]()
    folder = edited(tmp_path / "part", part, dict)
    path = next(folder.glob("*.safetensors"))
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=rf"{path.name} is Git LFS's pointer to the file"):
        read(kind, folder, part)
    path.unlink()
    with pytest.raises(InputError, match=r"cannot be loaded as .*safetensors"):
        read(kind, folder, part)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", ["10GB", "1KB"])
def test_the_only_variant_is_read_and_of_several_one_is_chosen(tmp_path: Path, kind: str, size: str) -> None:
    folder, part = tmp_path / "part", MAKERS[kind][1]()
    part.save_pretrained(folder, variant="fp16", max_shard_size=size)
    name = type(part).__name__
    for asked in (None, "fp16", "ema"):
        found = read_part(folder, MAKERS[kind][0], name, torch.float32, asked).state_dict()
        assert all(torch.equal(found[name], value) for name, value in part.state_dict().items())
    other = MAKERS[kind][1]()
    other.save_pretrained(folder, variant="ema")
    with pytest.raises(InputError, match=r"in several variants \(ema, fp16\) and none without; choose one"):
        read(kind, folder, part)
    found = read_part(folder, MAKERS[kind][0], name, torch.float32, "ema").state_dict()
    assert all(torch.equal(found[name], value) for name, value in other.state_dict().items())


@pytest.mark.parametrize("place", ["../{name}", "{folder}/{name}", "..", "sub/{name}", 3])
@pytest.mark.parametrize("kind", MAKERS)
def test_an_index_that_leads_out_of_the_folder_is_refused(kind: str, place: str | int, tmp_path: Path) -> None:
    """A link in an index is one more way to have a file opened that nobody named."""
    library, make = MAKERS[kind]
    model = make()
    model.save_pretrained(tmp_path / "part", max_shard_size="1KB")
    [index] = (tmp_path / "part").glob("*.safetensors.index.json")
    same = read_part(tmp_path / "part", library, type(model).__name__, torch.float32)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in model.state_dict().items())
    content = json.loads(index.read_text())
    tensor, file = next(iter(content["weight_map"].items()))
    (tmp_path / file).write_bytes((tmp_path / "part" / file).read_bytes())  # where the first two lead
    named = place.format(name=file, folder=tmp_path) if isinstance(place, str) else place
    content["weight_map"][tensor] = named
    index.write_text(json.dumps(content))
    said = f"{index} names {named!r}, which is outside its folder" if isinstance(place, str) else "it is damaged"
    with pytest.raises(InputError) as raised:
        read_part(tmp_path / "part", library, type(model).__name__, torch.float32)
    assert said in str(raised.value) and "\n" not in str(raised.value)
