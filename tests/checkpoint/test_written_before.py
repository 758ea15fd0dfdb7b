"""Temporal files, with trained weights, written before each image model had an adapter and each layer its own place.

Four are of d53f9db, before the adapters; the others of 819da47, before a scheme became a list of layers. Their headers
describe a scheme by the fields that it had then.
"""

from pathlib import Path

import pytest

from inflate.checkpoint import load_temporal, save_temporal
from tests.inflater.tiny_models import build

FOLDER = Path(__file__).parent / "written_before"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.safetensors")))
def test_a_file_written_before_loads_and_is_written_byte_for_byte_again(name: str, tmp_path: Path) -> None:
    model, scheme = name.split("_")
    path = FOLDER / f"{name}.safetensors"
    video_model = load_temporal(build(model), path)
    assert video_model.scheme.name == scheme
    assert save_temporal(video_model, tmp_path / "again").read_bytes() == path.read_bytes()
