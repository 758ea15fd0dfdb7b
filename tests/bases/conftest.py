from pathlib import Path

import pytest

from tests.bases import families


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds one of every family, by its name."""
    folder = tmp_path_factory.mktemp("families")
    for family in families.BUILDERS:
        families.build(family, folder / family)
    return folder
