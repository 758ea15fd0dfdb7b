"""Folders with weights in several files: variants to choose from, and shards under each name they have had."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inflate.checkpoint import convert, find_source, inspect, load, load_image_model
from inflate.checkpoint.source import find_weights
from inflate.errors import InputError
from tests.inflater.tiny_models import build

STEM = "diffusion_pytorch_model"


def first_weight(model: Any) -> torch.Tensor:
    return model.state_dict()["conv_in.weight"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Plain weights, and two variants with other values, so that they can be told apart."""
    for seed, variant in enumerate((None, "fp16", "non_ema")):
        build("sd15", seed).save_pretrained(tmp_path / "image", variant=variant)
    return tmp_path / "image"


@pytest.mark.parametrize(("variant", "seed"), [(None, 0), ("fp16", 1), ("non_ema", 2)])
def test_a_variant_is_chosen(folder: Path, tmp_path: Path, variant: str | None, seed: int) -> None:
    expected = first_weight(build("sd15", seed))
    assert torch.equal(first_weight(load_image_model(find_source(folder, variant=variant))), expected)
    assert inspect(folder, variant=variant).variant == variant
    convert(folder, tmp_path / "video", num_frames=3, variant=variant)
    names = {path.name for path in (tmp_path / "video").iterdir()}
    if variant is None:  # every file is kept, as without the choice
        assert names == {path.name for path in folder.iterdir()} | {"temporal.safetensors"}
    else:  # the others are left out, so that it loads without being told again
        assert names == {"config.json", f"{STEM}.{variant}.safetensors", "temporal.safetensors"}
    assert torch.equal(first_weight(load(tmp_path / "video").image_model), expected)
    assert torch.equal(first_weight(load(tmp_path / "video", variant=variant).image_model), expected)


def test_a_choice_is_needed_and_must_be_there(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no weights of variant 'fp61' \(did you mean 'fp16'\?\); .* fp16, non_ema"):
        inspect(folder, variant="fp61")
    (folder / f"{STEM}.safetensors").unlink()
    with pytest.raises(InputError, match=r"variants \(fp16, non_ema\) and none without; choose one with --variant"):
        inspect(folder)
    assert inspect(folder, variant="fp16").variant == "fp16"
    (folder / f"{STEM}.fp16.safetensors").unlink()
    assert inspect(folder).variant == "non_ema"  # the only one there is


@pytest.mark.parametrize("name", [STEM + ".fp16-{}-of-{}.safetensors", STEM + "-{}-of-{}.fp16.safetensors"])
def test_shards_of_a_variant_under_both_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "image"
    build("sd15", 5).save_pretrained(folder)  # a plain file beside them
    image_model = build("sd15")
    image_model.save_pretrained(folder, max_shard_size="20KB", variant="fp16")
    index = folder / f"{STEM}.safetensors.index.fp16.json"
    content = json.loads(index.read_text())
    renames = {}
    for path in sorted(folder.glob("*-of-*.safetensors")):
        number, total = path.name.removesuffix(".safetensors").removesuffix(".fp16").split("-of-")
        renames[path.name] = name.format(number[-5:], total)
        path.rename(folder / renames[path.name])
    assert len(renames) > 1
    content["weight_map"] = {key: renames[file] for key, file in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    convert(folder, tmp_path / "video", num_frames=3, variant="fp16")
    assert torch.equal(first_weight(load(tmp_path / "video").image_model), first_weight(image_model))
    assert not (tmp_path / "video" / f"{STEM}.safetensors").exists()
    index.unlink()
    with pytest.raises(InputError, match=r"index.fp16.json is missing: it says which weight is in which file"):
        inspect(folder, variant="fp16")


def _lacks_a_weight(weight_map: dict[str, Any]) -> None:
    del weight_map["conv_in.bias"]


def _names_a_weight_too_many(weight_map: dict[str, Any]) -> None:
    weight_map["conv_in.scale"] = weight_map["conv_in.bias"]


def _names_another_file(weight_map: dict[str, Any]) -> None:
    weight_map["conv_in.bias"] = next(file for file in weight_map.values() if file != weight_map["conv_in.bias"])


def _names_no_file_there(weight_map: dict[str, Any]) -> None:
    weight_map["conv_in.bias"] = f"{STEM}-00009-of-00009.safetensors"


def _leads_out_of_the_folder(weight_map: dict[str, Any]) -> None:
    weight_map["conv_in.bias"] = f"../{STEM}.safetensors"


def _is_empty(weight_map: dict[str, Any]) -> None:
    weight_map.clear()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_lacks_a_weight, r"disagree: 'conv_in.bias' is in .*safetensors, and by the index in none; copy the folder"),
        (_names_a_weight_too_many, r"disagree: 'conv_in.scale' is in none of them, and by the index in .*safetensors;"),
        (_names_another_file, r"disagree: 'conv_in.bias' is in (.*safetensors), and by the index in (?!\1).*tensors;"),
        (_names_no_file_there, r"-00009-of-00009.safetensors is missing: .* copy it again"),
        (_leads_out_of_the_folder, r"index.json names '../diffusion_pytorch_model.safetensors', which is outside its"),
        (_is_empty, r"index.json does not say which weight is in which file: it is damaged"),
    ],
)
def test_an_index_that_is_wrong_is_one_sentence(tmp_path: Path, spoil: Any, message: str) -> None:
    """diffusers makes up random values for weights that an index does not name."""
    build("sd15").save_pretrained(tmp_path / "image", max_shard_size="20KB")
    index = tmp_path / "image" / f"{STEM}.safetensors.index.json"
    content = json.loads(index.read_text())
    spoil(content["weight_map"])
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load_image_model(find_source(tmp_path / "image"))
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "image", tmp_path / "video", num_frames=3)
    assert not (tmp_path / "video").exists()


def test_an_index_without_any_of_its_files(tmp_path: Path) -> None:
    build("sd15").save_pretrained(tmp_path, max_shard_size="20KB")
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(InputError, match=r"index.json names '.*-00001-of-.*', and none of the model's files is there"):
        inspect(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"conv_in.bias": 3}}'])
def test_an_index_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: str) -> None:
    build("sd15").save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match=r"index.json does not say which weight is in which file: it is damaged"):
        inspect(tmp_path)


def test_what_is_checked_is_what_is_loaded(tmp_path: Path) -> None:
    """A whole file beside shards, and a shard that is left of another set: diffusers goes by the index."""
    image_model = build("sd15", 5)
    image_model.save_pretrained(tmp_path, max_shard_size="20KB")
    build("sd15", 6).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / f"{STEM}.safetensors").rename(tmp_path / f"{STEM}.safetensors")
    (tmp_path / f"{STEM}-00001-of-00099.safetensors").write_bytes(b"")
    source = find_source(tmp_path)
    paths = find_weights(source).paths
    assert len(paths) > 1 and all(path.name.startswith(f"{STEM}-") and "00099" not in path.name for path in paths)
    loaded = load_image_model(source).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in image_model.state_dict().items())
    (tmp_path / f"{STEM}.safetensors.index.json").unlink()
    assert [path.name for path in find_weights(source).paths] == [f"{STEM}.safetensors"]
    loaded = load_image_model(source).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in build("sd15", 6).state_dict().items())
