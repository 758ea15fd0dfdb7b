"""Looks: principal components of latents, one code for each thing."""

from pathlib import Path

import numpy as np
import torch

from emoji_family.looks import looks_of
from inflate.data import DataReport, FrameCache, FrameEntry


def cache_of(kinds: list[str]) -> FrameCache:
    """Two frames for each entry; entries 0 and 1 are one thing, and so on."""
    entries = tuple(
        FrameEntry(f"thing{number // 2}", "", (), "train", kind, 2 * number, 2, np.zeros(2), 0.1, False)
        for number, kind in enumerate(kinds)
    )
    return FrameCache(Path("none"), "none", 8, entries, DataReport(len(entries)))


def test_codes_are_uncorrelated_of_unit_variance_and_give_the_latents_back() -> None:
    cache = cache_of(["clip", "still"] * 40)
    latents = np.random.default_rng(0).normal(size=(160, 2, 3, 3)).astype(np.float16)
    latents[:, 0] *= 3
    looks = looks_of(cache, latents, {f"thing{n}" for n in range(40)}, 24)
    codes = torch.stack([looks.codes[name] for name in sorted(looks.codes)])
    assert codes.shape == (40, 24)
    covariance = (codes - codes.mean(dim=0)).T @ codes / 40
    assert torch.allclose(covariance[:18, :18], torch.eye(18), atol=1e-3)
    assert not codes[:, 18:].any() and not looks.deviations[18:].any()
    assert looks.deviations[0] > 2.5 and (looks.deviations.diff() <= 0).all()
    # All 18 numbers of a picture are linear in 18 components.
    rows = [4 * int(name[5:]) + 2 for name in sorted(looks.codes)]
    true = torch.from_numpy(latents[rows].astype(np.float32)).flatten(1)
    true = true - true.mean(dim=0)
    found = torch.linalg.lstsq(codes[:, :18], true).solution
    assert (codes[:, :18] @ found - true).abs().max() < 1e-3


def test_a_still_speaks_for_a_thing_and_a_clip_where_there_is_none() -> None:
    cache = cache_of(["clip", "still", "clip", "clip", "still", "still"])
    latents = np.arange(12, dtype=np.float16)[:, None, None, None] ** 2
    looks = looks_of(cache, latents, {"thing0", "thing1", "thing2"}, 1)
    codes = torch.cat([looks.codes[f"thing{number}"] for number in range(3)])
    rows = torch.tensor([2.0, 4.0, 8.0]) ** 2  # still of 0, first clip of 1, first still of 2
    expected = (rows - rows.mean()) / rows.std(correction=0)
    assert torch.allclose(codes, expected, atol=1e-4)
    assert set(looks_of(cache, latents, {"thing1"}, 1).codes) == {"thing1"}
