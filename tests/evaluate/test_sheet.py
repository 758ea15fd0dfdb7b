import numpy as np
import pytest
from PIL import Image

from inflate.errors import InputError
from inflate.evaluate.sheet import contact_sheet, png_bytes


def test_generated_left_true_right(tmp_path):
    generated = np.zeros((3, 8, 8, 3), np.uint8)
    generated[2] = (200, 0, 0)
    true = np.full((3, 8, 8, 3), 90, np.uint8)
    path = tmp_path / "sheet.png"
    path.write_bytes(png_bytes(contact_sheet(generated, true, ["a", "b", "c"], [True, False, True], columns=2)))
    with Image.open(path) as picture:
        sheet = np.asarray(picture)
    assert tuple(sheet[4 + 2, 4 + 2]) == (0, 0, 0)
    assert tuple(sheet[4 + 2, 4 + 8 + 2]) == (90, 90, 90)
    # Third pair: first column of the second row.
    assert tuple(sheet[4 + 8 + 14 + 4 + 2, 4 + 2]) == (200, 0, 0)


def test_refuses_unequal_numbers():
    with pytest.raises(InputError, match="as many true as generated"):
        contact_sheet(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8), ["a"], [True])
