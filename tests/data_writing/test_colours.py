"""An mp4 has the colours it was given, and says by which matrix, at every size."""

from pathlib import Path

import av
import numpy as np
import pytest

from inflate.data import decode_video
from inflate.data.writing import write_video

COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 180, 140)], np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (720, 96), (64, 1280), (63, 97), (721, 99), (63, 96)])
def test_colours_are_those_of_bt709(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    quarters = COLOURS[np.minimum(np.arange(width) // (width // 4), 3)]
    frames = np.broadcast_to(quarters[None, None], (3, height, width, 3)).copy()
    path = write_video(tmp_path / "out.mp4", frames, 8)
    middles = [width // 8 + quarter * width // 4 for quarter in range(4)]
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        tags = (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc), int(frame.color_range))
        luma = frame.to_ndarray()[height // 2, middles].astype(float)
    assert tags == (1, 1, 1, 1)
    # The definition: Y' = 16 + 219 (0.2126 R' + 0.7152 G' + 0.0722 B').
    expected = 16 + 219 * (COLOURS / 255) @ np.array([0.2126, 0.7152, 0.0722])
    assert np.abs(luma - expected).max() < 2
    seen = decode_video(path).frames[1, height // 2, middles].astype(int)
    assert np.abs(seen - COLOURS).max() <= 4
