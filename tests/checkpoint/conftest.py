"""An image model's folder, which most tests of this directory begin with."""

from pathlib import Path

import pytest

from tests.inflater.tiny_models import build


@pytest.fixture
def unet_folder(tmp_path: Path) -> Path:
    """A saved image model."""
    folder = tmp_path / "image"
    build("sd15").save_pretrained(folder)
    return folder
