"""Fréchet distance between two sets of features (Heusel et al. 2017, eq. 6), in float64.

Over EfficientNet-Lite0 features of single frames it compares one of our models with another; it is not FID or FVD,
whose features are those of Inception and I3D, and its values compare only at the same number of pictures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from inflate.errors import InputError


@dataclass(frozen=True)
class Gaussian:
    """Mean ``(D,)`` and covariance ``(D, D)`` of features, float64."""

    mean: Tensor
    covariance: Tensor


def fit_gaussian(features: Tensor) -> Gaussian:
    """Mean and unbiased covariance of features ``(N, D)``, N at least 2."""
    if features.ndim != 2 or features.shape[0] < 2:
        raise InputError(f"a Fréchet distance needs at least 2 rows of features (N, D), got {tuple(features.shape)}")
    rows = features.double()
    mean = rows.mean(dim=0)
    centred = rows - mean
    return Gaussian(mean, centred.T @ centred / (rows.shape[0] - 1))


def _symmetric_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """``|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)`` (Dowson and Landau 1982; Heusel et al. 2017, eq. 6).

    The trace of the root is taken from the eigenvalues of the symmetric ``C1^½ C2 C1^½``, which has those of ``C1 C2``:
    no complex root, and rank-deficient covariances (fewer pictures than features) do no harm.
    """
    if first.mean.shape != second.mean.shape:
        raise InputError(
            f"the two sets have features of different width: {first.mean.shape[0]} and {second.mean.shape[0]}"
        )
    root = _symmetric_root(first.covariance)
    product = root @ second.covariance @ root
    trace_of_root = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (
        (first.mean - second.mean).square().sum()
        + first.covariance.trace()
        + second.covariance.trace()
        - 2 * trace_of_root
    )
    return float(distance.clamp(min=0))


def frechet_of_samples(first: Tensor, second: Tensor, *, biased: bool = False) -> float:
    """The same between the Gaussians of features ``(N, D)`` and ``(M, D)``, without their D x D covariances.

    With the centred features X and Y, ``C1 = XᵀX / (N - 1)`` and ``C2 = YᵀY / (M - 1)``, so that ``C1 C2`` has the
    eigenvalues of ``(X Yᵀ)(X Yᵀ)ᵀ / ((N - 1)(M - 1))``: the trace of its root is the sum of the singular values of the
    matrix ``X Yᵀ``, or of the smaller one that is left of it when each of them with more rows than columns is put into
    triangular form, for that is a turn of rows. No root of rounding errors is taken.

    Args:
        first: the one set.
        second: the other.
        biased: covariances over N and M, as StyleGAN-V's and cd-fvd's statistics are, where FID's and VideoGPT's are
            over N - 1 and M - 1.

    Raises:
        InputError: fewer than 2 rows, features of different width, or numbers that are not finite.
    """
    for rows in (first, second):
        if rows.ndim != 2 or rows.shape[0] < 2:
            raise InputError(f"a Fréchet distance needs at least 2 rows of features (N, D), got {tuple(rows.shape)}")
        if not rows.isfinite().all():
            raise InputError("a Fréchet distance needs finite features")
    if first.shape[1] != second.shape[1]:
        raise InputError(f"the two sets have features of different width: {first.shape[1]} and {second.shape[1]}")
    means = [rows.double().mean(dim=0) for rows in (first, second)]
    x, y = (
        (rows.double() - mean) / (rows.shape[0] - (not biased)) ** 0.5
        for rows, mean in zip((first, second), means, strict=True)
    )
    trace_of_root = torch.linalg.svdvals(_few_rows(x) @ _few_rows(y).T).sum()
    distance = (means[0] - means[1]).square().sum() + x.square().sum() + y.square().sum() - 2 * trace_of_root
    return float(distance.clamp(min=0))


def _few_rows(rows: Tensor) -> Tensor:
    """Rows ``(N, D)``, or where they are more than D the triangle ``R`` of ``Q R``, with the same ``RᵀR``."""
    return torch.linalg.qr(rows, mode="r").R if rows.shape[0] > rows.shape[1] else rows
