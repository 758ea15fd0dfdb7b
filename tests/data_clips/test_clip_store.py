"""Encodings on disk: kept to the bit, refused when damaged, foreign or when the disk is full."""

import hashlib
import json
import pickle
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from inflate.data.clips import EncodingStore
from inflate.data.clips import store as store_module
from inflate.errors import InputError


def tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(4, 2, 3, generator=generator).bfloat16(),
        "text/last": torch.randn(7, 5, generator=generator),
        "mask": torch.tensor([True, False, True]),
        "label": torch.tensor(seed),
    }


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]) for key in left
    )


@pytest.fixture
def filled(tmp_path: Path) -> EncodingStore:
    store = EncodingStore(tmp_path, "model a")
    for seed in range(3):
        store.add(f"clip {seed}", tensors(seed))
        if seed < 2:
            store.flush()
    return store


def test_tensors_come_back_to_the_bit(filled: EncodingStore, tmp_path: Path) -> None:
    assert all(same(filled.get(f"clip {seed}"), tensors(seed)) for seed in range(3)), "also what is not written yet"
    opened = EncodingStore(tmp_path, "model a")
    assert opened.missing(["clip 2", "clip 0", "x", "x"]) == ["clip 2", "x"], "the third was never flushed"
    filled.flush()
    opened = EncodingStore(tmp_path, "model a")
    assert opened.missing([f"clip {seed}" for seed in range(3)]) == [] and len(opened) == 3
    assert all(same(opened.get(f"clip {seed}"), tensors(seed)) for seed in range(3))
    worker = pickle.loads(pickle.dumps(opened))
    assert same(worker.get("clip 1"), tensors(1))


def test_a_full_shard_is_written_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 1000)
    store = EncodingStore(tmp_path, "k")
    for number in range(10):
        store.add(str(number), {"x": torch.full((100,), float(number))})
    assert len(list(store.folder.glob("*.safetensors"))) == 3, "400 bytes each, a shard of 1000 or more"
    assert EncodingStore(tmp_path, "k").missing([str(n) for n in range(10)]) == ["9"]


def test_what_was_added_is_a_copy_and_is_added_once(tmp_path: Path) -> None:
    store = EncodingStore(tmp_path, "k")
    tensor = torch.zeros(3)
    store.add("a", {"x": tensor})
    tensor += 1
    store.add("a", {"x": tensor})
    store.flush()
    store.flush()
    assert torch.equal(EncodingStore(tmp_path, "k").get("a")["x"], torch.zeros(3))


def test_equal_shards_are_equal_files(tmp_path: Path) -> None:
    for name, order in (("one", (0, 1, 2)), ("two", (2, 0, 1))):
        store = EncodingStore(tmp_path / name, "k")
        for seed in order:
            store.add(str(seed), tensors(seed))
        store.flush()
    one, two = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).rglob("shard*")}
        for name in ("one", "two")
    )
    assert one == two and len(one) == 2


def test_another_key_sees_nothing(filled: EncodingStore, tmp_path: Path) -> None:
    other = EncodingStore(tmp_path, "model b")
    assert other.missing(["clip 0"]) == ["clip 0"]
    with pytest.raises(InputError, match="keeps nothing under 'clip 0'"):
        other.get("clip 0")


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "card"])
def test_damage_is_one_sentence(filled: EncodingStore, tmp_path: Path, damage: str) -> None:
    shard = sorted(filled.folder.glob("*.safetensors"))[0]
    card = shard.with_suffix(".json")
    [name] = json.loads(card.read_text())["names"]
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        shard.write_bytes(bytes(data))
    elif damage == "cut":
        shard.write_bytes(bytes(data[:-5]))
    elif damage == "gone":
        shard.unlink()
    else:
        card.write_text("{")
    with pytest.raises(InputError, match="is damaged or was changed; delete") as error:
        EncodingStore(tmp_path, "model a").get(name)
    assert "\n" not in str(error.value)


def test_shards_of_another_model_are_refused(filled: EncodingStore, tmp_path: Path) -> None:
    other = EncodingStore(tmp_path, "model b")
    shutil.copytree(filled.folder, other.folder)
    with pytest.raises(InputError, match="another model or preprocessing"):
        EncodingStore(tmp_path, "model b")
    for card in other.folder.glob("*.json"):
        card.write_text(json.dumps({**json.loads(card.read_text()), "key": "model b"}))
    with pytest.raises(InputError, match="another model or preprocessing"):
        EncodingStore(tmp_path, "model b").get("clip 0")


def test_a_full_disk_keeps_what_was_written(
    filled: EncodingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 1 << 20))
    with pytest.raises(InputError, match=r"the disk has 1 MiB left.*what was written is kept"):
        filled.flush()
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inflate.staging.os.replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        filled.flush()
    monkeypatch.undo()
    assert not list(filled.folder.glob(".writing-*"))
    assert EncodingStore(tmp_path, "model a").missing([f"clip {n}" for n in range(3)]) == ["clip 2"]
    filled.flush()
    assert EncodingStore(tmp_path, "model a").missing(["clip 2"]) == []
