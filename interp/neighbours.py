"""The known frames around new ones, and these moved along their optical flow to where they belong."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inflate.data.optical_flow import optical_flow

_FAR = 8  # frames: distances are told as shares of this
_BEYOND = 4.0  # motion goes on beyond the known frames for at most so many times the distance it was seen over


@dataclass(frozen=True)
class Place:
    """Where new frame ``index`` lies: the known ones before it (``before`` < ``previous``) and after it (``following``
    < ``after``); at an end the nearest known frame is both neighbours, and a second one there is not is the first."""

    index: int
    before: int
    previous: int
    following: int
    after: int

    @property
    def time(self) -> float:
        """From 0 (the previous) to 1 (the following); 1 where both are the same."""
        gap = self.following - self.previous
        return (self.index - self.previous) / gap if gap else 1.0

    @property
    def distance(self) -> int:
        """Frames to the nearest known one."""
        return min(abs(self.index - self.previous), abs(self.following - self.index))

    def numbers(self) -> tuple[float, ...]:
        """What a network is told: time; -1 before all known frames, 1 after them, else 0; the distance, and the steps
        between the four known frames, in units of 8 frames."""
        outside = float(np.sign(self.index - self.previous)) if self.previous == self.following else 0.0
        steps = (self.previous - self.before, self.following - self.previous, self.after - self.following)
        return (self.time, outside, self.distance / _FAR, *(step / _FAR for step in steps))


NUMBERS = 6


@dataclass(frozen=True)
class Neighbours:
    """The known frames around each of N new ones.

    ``previous``, ``following``, ``before``, ``after``: (N, 3, H, W), as in :class:`Place`.
    ``time``: (N,), and ``numbers``: (N, 6), of the place.
    ``flow_previous`` and ``flow_following``: (N, 2, H, W), how far from each pixel of the new frame its picture lies in
    the previous and the following frame, x then y in pixels. Beyond the known frames, where both are the nearest one,
    the first is zero and the second has the motion there go on as it was; the time is 1 there.
    ``from_previous`` and ``from_following``: (N, 3, H, W), the two fetched from there.
    """

    previous: Tensor
    following: Tensor
    before: Tensor
    after: Tensor
    time: Tensor
    numbers: Tensor
    flow_previous: Tensor
    flow_following: Tensor
    from_previous: Tensor
    from_following: Tensor

    @property
    def blend(self) -> Tensor:
        """The blend of the two as they are at ``time``, (N, 3, H, W)."""
        return torch.lerp(self.from_previous, self.from_following, self.time[:, None, None, None])

    def take(self, chosen: Tensor) -> "Neighbours":
        """Those of some of the new frames: numbers, or a mask (N,)."""
        return Neighbours(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def backwards(self) -> "Neighbours":
        """The same new frames as they are seen when time runs backwards."""
        time, outside, distance, early, gap, late = self.numbers.unbind(dim=1)
        inside = outside == 0

        def swapped(one: Tensor, other: Tensor) -> Tensor:
            # Beyond the known frames both neighbours are one frame, and their flows are those on either side of it.
            return torch.where(inside.reshape(-1, *[1] * (one.ndim - 1)), other, one)

        turned = torch.where(inside, 1 - time, time)
        return Neighbours(
            previous=self.following,
            following=self.previous,
            before=self.after,
            after=self.before,
            time=turned,
            numbers=torch.stack([turned, -outside, distance, late, gap, early], dim=1),
            flow_previous=swapped(self.flow_previous, self.flow_following),
            flow_following=swapped(self.flow_following, self.flow_previous),
            from_previous=swapped(self.from_previous, self.from_following),
            from_following=swapped(self.from_following, self.from_previous),
        )


def places(known: Sequence[int], new: Sequence[int]) -> list[Place]:
    """The place of each of the ``new`` frame numbers among the ``known`` ones, of which there must be one."""
    found = []
    for index in new:
        early = sorted(place for place in known if place < index)
        late = sorted(place for place in known if place > index)
        previous, following = (early or late[:1])[-1], (late or early[-1:])[0]
        before = early[-2] if len(early) > 1 else previous
        after = late[1] if len(late) > 1 else following
        found.append(Place(index, before, previous, following, after))
    return found


def neighbours_of(video: Tensor, known: Sequence[int], new: Sequence[int]) -> Neighbours:
    """The neighbours of the ``new`` frames of one video (3, F, H, W) in [-1, 1], of which the frames ``known`` are
    there."""
    found = places(known, new)
    flows = _flows(video, found)
    early, late = (torch.stack([pair[side] for pair in flows]).to(video) for side in (0, 1))
    pictures = {
        name: video[:, [getattr(place, name) for place in found]].transpose(0, 1)
        for name in ("previous", "following", "before", "after")
    }
    return Neighbours(
        **pictures,
        time=torch.tensor([place.time for place in found]).to(video),
        numbers=torch.tensor([place.numbers() for place in found]).to(video),
        flow_previous=early,
        flow_following=late,
        from_previous=move(pictures["previous"], early),
        from_following=move(pictures["following"], late),
    )


def join_neighbours(several: Sequence[Neighbours]) -> Neighbours:
    """Those of several videos, one after the other."""
    names = [field.name for field in fields(Neighbours)]
    return Neighbours(*(torch.cat([getattr(one, name) for one in several]) for name in names))


def move(pictures: Tensor, flow: Tensor) -> Tensor:
    """Each pixel fetched from ``flow`` (N, 2, H, W) pixels away in ``pictures`` (N, C, H, W), between pixels linearly;
    beyond the edge, the edge. Where the flow is zero the picture is left as it is to the last bit or two."""
    height, width = pictures.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    x = (columns + flow[:, 0]) * (2 / max(1, width - 1)) - 1
    y = (rows + flow[:, 1]) * (2 / max(1, height - 1)) - 1
    grid = torch.stack([x, y], dim=-1).to(pictures.dtype)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _flows(video: Tensor, found: Sequence[Place]) -> list[tuple[Tensor, Tensor]]:
    """For each place the flows (2, H, W) to its previous and to its following frame.

    Between two frames a pixel of the new one is fetched from ``t`` of the flow behind it in the earlier frame and ``1 -
    t`` of the opposite flow in the later one, as if flow were smooth (Super SloMo, arXiv:1712.00080, section 3.1);
    where there is a third frame, pixels go at a constant acceleration (arXiv:1911.00627, equation 3).
    """
    levels: dict[int, np.ndarray] = {}
    cache: dict[tuple[int, int], Tensor] = {}

    def level(index: int) -> np.ndarray:
        if index not in levels:
            picture = video[:, index].detach().float().cpu().permute(1, 2, 0).numpy()
            levels[index] = ((picture + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        return levels[index]

    def flow(first: int, second: int) -> Tensor:
        if (first, second) not in cache:
            made = optical_flow(level(first), level(second))
            cache[first, second] = torch.from_numpy(np.ascontiguousarray(made.transpose(2, 0, 1)))
        return cache[first, second]

    def motion(first: int, second: int, beyond: int, time: float) -> Tensor:
        """How far pixels of ``first`` have gone at ``time`` between it and ``second``, as ``beyond`` bends the way."""
        straight = time * flow(first, second)
        if beyond == first:
            return straight
        ratio = (first - beyond) / (second - first)
        half = (flow(first, beyond) + ratio * flow(first, second)) / (ratio**2 + ratio)
        return straight + min(1.0, ratio) * (time**2 - time) * half

    still = torch.zeros(2, *video.shape[-2:])
    result = []
    for place in found:
        nearest, second = place.previous, place.before if place.index > place.previous else place.after
        if place.previous != place.following:
            early = motion(place.previous, place.following, place.before, place.time)
            late = motion(place.following, place.previous, place.after, 1 - place.time)
            result.append((-early, -late))
        elif nearest != second:
            times = (place.index - nearest) / (nearest - second)
            result.append((still, min(times, _BEYOND) * flow(nearest, second)))
        else:
            result.append((still, still))
    return result
