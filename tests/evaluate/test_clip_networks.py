"""CLIPs of three layouts: what the folder says is what is computed."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from inflate.errors import InputError
from inflate.evaluate.clip_networks import load_clip
from tests.cascade.foreign_pipelines import tokenizer as tiny_tokenizer
from tests.evaluate.references import inputs

PICTURES = inputs.clips(1, 3, 40, 56)[0]
TEXTS = ["a red ball", "two dogs"]
SIDE, WIDTH = 32, 16


@pytest.fixture(scope="module")
def transformers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers") / "clip"
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("words"))
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 12}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = {**sizes, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": SIDE}
    CLIPImageProcessor(size=size, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open_clip")
    tower = {"image_size": SIDE, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": WIDTH, "vision_cfg": tower, "text_cfg": text}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    preprocess = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


def test_a_folder_of_transformers(transformers_folder: Path) -> None:
    network = load_clip(str(transformers_folder))
    made, said = network.pictures(PICTURES), network.texts(TEXTS)
    model: Any = CLIPModel.from_pretrained(transformers_folder)
    processor: Any = CLIPImageProcessor.from_pretrained(transformers_folder)
    ready = processor(images=[Image.fromarray(one.numpy()) for one in PICTURES], return_tensors="pt")["pixel_values"]
    tokens = tiny_tokens(transformers_folder)
    with torch.no_grad():
        whole = model(pixel_values=ready, **tokens)
    assert torch.allclose(made, whole.image_embeds, atol=1e-5) and torch.allclose(said, whole.text_embeds, atol=1e-5)
    assert made.shape == (3, WIDTH) and torch.allclose(made.norm(dim=1), torch.ones(3))
    assert network.weights.source == "clip" and not torch.allclose(said[0], said[1])
    assert network.texts(["word " * 50]).isfinite().all(), "longer than the network takes"


def tiny_tokens(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")


def test_a_folder_of_open_clip(open_clip_folder: Path) -> None:
    network = load_clip(str(open_clip_folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = open_clip.create_model_from_pretrained(f"local-dir:{open_clip_folder}")
    model, transform = made
    with torch.no_grad():
        pictures = model.encode_image(
            torch.stack([transform(Image.fromarray(np.asarray(p))) for p in PICTURES]), normalize=True
        )
        texts = model.eval().encode_text(open_clip.tokenize(TEXTS), normalize=True)
    assert torch.allclose(network.pictures(PICTURES), pictures, atol=1e-5)
    assert torch.allclose(network.texts(TEXTS), texts, atol=1e-5)


def test_our_own_that_is_bundled() -> None:
    network = load_clip("bundled:clip")
    assert network.weights.packaged
    rocket, heart = network.texts(["rocket", "red heart"])
    assert float(rocket @ heart) < 0.9 and network.pictures(PICTURES).shape == (3, len(rocket))


def test_folders_that_are_no_clip(tmp_path: Path, open_clip_folder: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        load_clip(str(tmp_path / "none"))
    with pytest.raises(InputError, match="holds no weights"):
        load_clip(str(tmp_path))
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="cannot be read as a CLIP of transformers"):
        load_clip(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as open_clip's folder"):
        load_clip(str(tmp_path))


def test_a_repository_is_looked_for_only_by_its_name(
    monkeypatch: pytest.MonkeyPatch, transformers_folder: Path
) -> None:
    asked: list[str] = []

    def download(name: str) -> Path:
        asked.append(name)
        return transformers_folder

    monkeypatch.setattr("inflate.evaluate.clip_networks.download", download)
    load_clip(str(transformers_folder))
    load_clip("bundled:clip")
    assert not asked
    assert load_clip("openai/clip-vit-base-patch32").weights.source == "openai/clip-vit-base-patch32"
    assert asked == ["openai/clip-vit-base-patch32"]
