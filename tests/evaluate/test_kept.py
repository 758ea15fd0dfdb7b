import json
from pathlib import Path

import numpy as np
import pytest

from inflate.errors import InputError
from inflate.evaluate.kept import KeptClips, folder_fingerprint

CLIP = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)


def test_clips_come_back_in_another_run(tmp_path: Path) -> None:
    folder, settings = tmp_path / "new" / "kept", {"seed": 1, "sampling": (1, 2)}
    first = KeptClips(folder, settings)
    assert first.get("the chain", "1f600") is None and not first.has("the chain", "1f600")
    first.put("the chain", "1f600", CLIP)
    second = KeptClips(folder, settings)
    found = second.get("the chain", "1f600")
    assert found is not None and np.array_equal(found, CLIP) and found.dtype == np.uint8
    assert second.has("the chain", "1f600") and not second.has("another", "1f600")
    assert sorted(path.name for path in folder.iterdir()) == ["settings.json", "the-chain.1f600.npy"]


def test_in_memory() -> None:
    kept = KeptClips(None, {})
    kept.put("a", "b", CLIP)
    assert kept.get("a", "b") is CLIP and kept.has("a", "b") and kept.get("a", "c") is None


def test_clips_of_other_settings_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    KeptClips(tmp_path / "kept", {"seed": 1, "steps": 4}).put("a", "b", CLIP)
    with pytest.raises(InputError, match="were made with another seed; name another folder"):
        KeptClips(tmp_path / "kept", {"seed": 2, "steps": 4})
    (tmp_path / "kept" / "a.b.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"a\.b\.npy is damaged"):
        KeptClips(tmp_path / "kept", {"seed": 1, "steps": 4}).get("a", "b")
    (tmp_path / "kept" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="were made with another seed and another steps"):
        KeptClips(tmp_path / "kept", {"seed": 1, "steps": 4})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("…")
    with pytest.raises(InputError, match="something other than kept clips"):
        KeptClips(tmp_path / "mine", {})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "…"


def test_the_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({}))
    weights = tmp_path / "unet" / "a.safetensors"
    weights.write_bytes(b"1")
    before = folder_fingerprint(tmp_path)
    assert before == folder_fingerprint(tmp_path) and len(before) == 16
    weights.write_bytes(b"2")
    assert folder_fingerprint(tmp_path) != before and folder_fingerprint(None) == ""
