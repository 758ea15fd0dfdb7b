"""Dense optical flow between two frames (OpenCV's DIS, arXiv:1603.03590), and moving a frame along it."""

from collections.abc import Iterable, Mapping

import numpy as np

_FLOW_SIDE = 128  # pixels; frames are enlarged to this before DIS, whose patches are 8 pixels wide


def optical_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where each pixel of ``first`` goes in ``second``: uint8 (H, W, 3) each, float32 (H, W, 2) in pixels, x then y."""
    import cv2

    height, width = first.shape[:2]
    scale = max(1.0, _FLOW_SIDE / min(height, width))
    size = (round(width * scale), round(height * scale))
    grey = [
        cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_RGB2GRAY)
        for frame in (first, second)
    ]
    start = np.zeros((size[1], size[0], 2), np.float32)
    # OpenCV's type stubs leave this one out.
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # pyright: ignore[reportAttributeAccessIssue]
    flow = dis.calc(grey[0], grey[1], start)
    return cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / scale


def flows_between(
    frames: np.ndarray | Mapping[int, np.ndarray], pairs: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """The flows there and back between the frames (uint8) of each pair of numbers; equal frames have none."""
    return {
        (first, second): (
            optical_flow(frames[first], frames[second]),
            optical_flow(frames[second], frames[first]),
        )
        for first, second in sorted(set(pairs))
        if first != second
    }


def move_along(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Each pixel fetched from ``flow`` (H, W, 2) pixels away in ``frame`` (H, W, C), between pixels linearly.

    float32; beyond the edge, the edge.
    """
    import cv2

    height, width = frame.shape[:2]
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    x, y = (columns + flow[..., 0]).astype(np.float32), (rows + flow[..., 1]).astype(np.float32)
    return cv2.remap(frame.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def move_to_between(
    first: np.ndarray, second: np.ndarray, flows: tuple[np.ndarray, np.ndarray], time: float
) -> tuple[np.ndarray, np.ndarray]:
    """Both frames as the flow has them at ``time`` between them, from 0 (the first) to 1 (the second).

    A pixel of the new frame is fetched from ``t`` of the flow behind it in the earlier frame and ``1 - t`` of the
    opposite flow in the later one, as if flow were smooth (Super SloMo, arXiv:1712.00080, section 3.1).

    Args:
        first: (H, W, C).
        second: (H, W, C).
        flows: from the first to the second, and back, as :func:`optical_flow` gives them.
        time: from 0 to 1.
    """
    return move_along(first, -time * flows[0]), move_along(second, -(1 - time) * flows[1])
