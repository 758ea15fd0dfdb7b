"""Does a picture show the prompted thing? Its rank among the stills of all things, nearest features first."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from inflate.errors import InputError
from inflate.evaluate.features import PictureFeatures


@dataclass(frozen=True)
class RetrievedPrompt:
    """One prompt: the thing's name, its caption, the rank of its own still (1 = nearest) and the nearest names."""

    name: str
    caption: str
    rank: int
    nearest: tuple[str, ...]


@dataclass(frozen=True)
class RetrievalScore:
    """How many queries have their own still nearest, among the nearest ``top``, and at which rank on average."""

    queries: int
    gallery: int
    top: int
    top_1: int
    top_k: int
    mean_rank: float
    median_rank: float


@dataclass(frozen=True)
class RetrievalReport:
    """Score of generated pictures with, for scale, the scores real pictures reach under the same measure.

    ``ceilings`` maps a description of real pictures of the same things to their score.
    """

    split: str
    seed: int
    score: RetrievalScore
    ceilings: dict[str, RetrievalScore]
    prompts: tuple[RetrievedPrompt, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


def choose_names(names: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` of ``names`` drawn without replacement; the same for the same set of names and seed.

    Raises:
        InputError: fewer than ``count`` names, or ``count`` below 1.
    """
    if not 1 <= count <= len(names):
        raise InputError(f"cannot choose {count} prompts: the data has {len(names)} names; ask for 1 to {len(names)}")
    # random.Random.sample is stable across Python versions for a list of one order; hence the sort.
    return random.Random(seed).sample(sorted(names), count)


def cosine_similarity_matrix(queries: Tensor, gallery: Tensor) -> Tensor:
    """Cosine of every query ``(Q, D)`` with every gallery row ``(G, D)``: ``(Q, G)`` float64."""
    return F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T


def ranks_of_targets(similarity: Tensor, targets: Tensor) -> Tensor:
    """Rank of column ``targets[q]`` in row q of ``similarity (Q, G)``: 1 + the number of columns at least as near.

    The target itself is not counted; a tie counts against it, so that equal features for everything earn the last rank.
    """
    own = similarity.gather(1, targets[:, None])
    return (similarity >= own).sum(dim=1)


def score_ranks(ranks: Sequence[int], gallery: int, top: int) -> RetrievalScore:
    """Count the ranks: first, within ``top``, their mean and (lower) median."""
    if not ranks:
        raise InputError("there are no pictures to score")
    values = torch.tensor(ranks, dtype=torch.float64)
    return RetrievalScore(
        queries=len(ranks),
        gallery=gallery,
        top=top,
        top_1=int((values == 1).sum()),
        top_k=int((values <= top).sum()),
        mean_rank=float(values.mean()),
        median_rank=float(values.median()),
    )


def retrieve(
    queries: Tensor, targets: Sequence[str], gallery: Tensor, gallery_names: Sequence[str], top: int = 5
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Rank of each query's own name, and its ``top`` nearest names, nearest first.

    Args:
        queries: features ``(Q, D)``, query q showing the thing ``targets[q]``.
        targets: a gallery name per query.
        gallery: features ``(G, D)`` of the stills, one per entry of ``gallery_names``.
        gallery_names: names of the stills, all different.
        top: how many nearest names to list.
    """
    column = {name: index for index, name in enumerate(gallery_names)}
    if len(column) != len(gallery_names):
        raise InputError("the gallery names one thing twice; keep one still per name")
    missing = [name for name in targets if name not in column]
    if missing:
        raise InputError(f"the gallery has no still of {missing[0]!r}; it needs one for every prompt")
    if not 1 <= top <= len(gallery_names):
        raise InputError(f"--top is {top}, but must lie between 1 and the {len(gallery_names)} stills of the gallery")
    similarity = cosine_similarity_matrix(queries, gallery)
    ranks = ranks_of_targets(similarity, torch.tensor([column[name] for name in targets]))
    nearest = similarity.topk(top, dim=1).indices
    return ranks.tolist(), [tuple(gallery_names[int(index)] for index in row) for row in nearest]


def measure_retrieval(
    generated: Tensor,
    targets: Sequence[str],
    stills: Tensor,
    still_names: Sequence[str],
    caption: Callable[[str], str],
    features: PictureFeatures,
    real: Mapping[str, tuple[Tensor, Sequence[str]]],
    split: str,
    seed: int,
    top: int = 5,
) -> RetrievalReport:
    """Rank generated pictures against the stills of all things, and real pictures likewise for scale.

    Args:
        generated: pictures ``(Q, 3, H, W)`` in [0, 1], one per target.
        targets: the prompted name of each picture.
        stills: pictures ``(G, 3, H, W)`` in [0, 1] at the size of the generated ones.
        still_names: the name of each still.
        caption: name to prompt.
        features: what turns pictures into features.
        real: description to (pictures, names) of real pictures that go through the same measure.
        split: which part of the data the prompts are from (reported only).
        seed: the seed of the choice and of sampling (reported only).
        top: how near counts as found.
    """
    gallery = features(stills)
    ranks, nearest = retrieve(features(generated), targets, gallery, still_names, top)
    ceilings = {}
    for description, (pictures, names) in real.items():
        if len(names):
            real_ranks, _ = retrieve(features(pictures), names, gallery, still_names, top)
            ceilings[description] = score_ranks(real_ranks, len(still_names), top)
    prompts = tuple(
        RetrievedPrompt(name, caption(name), rank, names)
        for name, rank, names in zip(targets, ranks, nearest, strict=True)
    )
    return RetrievalReport(split, seed, score_ranks(ranks, len(still_names), top), ceilings, prompts)
