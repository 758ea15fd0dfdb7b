"""Intervals and extrapolation on numbers whose truth is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.evaluate.estimates import Rows, bootstrap, extrapolate, inception_score, kernel_distance, mean_of
from inflate.evaluate.frechet import frechet_of_samples

WIDTH = 6


def normal(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def rows(values: Tensor, per_video: int = 1) -> Rows:
    return Rows(values, tuple(f"video {number // per_video:04d}" for number in range(len(values))))


def test_samples_of_gaussians_with_a_known_distance() -> None:
    """Rows whose mean and covariance are exactly what was asked for, so that the closed form holds to rounding."""
    white = normal(50, 0)
    white = white - white.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(white.T @ white / 49).T)
    spread = torch.tensor([1.0, 2.0, 3.0, 0.5, 4.0, 1.0], dtype=torch.float64)
    first, second = white, white * spread + 2
    expected = 4 * WIDTH + float((spread - 1).square().sum())
    assert frechet_of_samples(first, second) == pytest.approx(expected, abs=1e-6)
    assert frechet_of_samples(second, first) == pytest.approx(expected, abs=1e-6)
    assert frechet_of_samples(first, second, biased=True) == pytest.approx(
        4 * WIDTH + 49 / 50 * float((spread - 1).square().sum()), abs=1e-6
    )


@pytest.mark.parametrize("count", [4, 300])
def test_a_set_is_at_no_distance_from_itself(count: int) -> None:
    features = torch.randn(count, 40, generator=torch.Generator().manual_seed(1)) * 100
    assert frechet_of_samples(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_of_samples(features, features.flip(0), biased=True) == pytest.approx(0, abs=1e-6)


def test_the_interval_is_as_wide_as_other_draws_are() -> None:
    drawn = [frechet_of_samples(normal(150, seed), normal(150, seed + 500, 1.0)) for seed in range(60)]
    interval = bootstrap(frechet_of_samples, [rows(normal(150, 7)), rows(normal(150, 507, 1.0))], 100)
    assert interval is not None and interval.resamples == 100
    assert interval.deviation == pytest.approx(float(np.std(drawn)), rel=0.4)
    assert interval.high - interval.low == pytest.approx(2 * 1.95996 * interval.deviation, rel=1e-4)


def test_clips_of_one_video_are_drawn_together() -> None:
    """20 videos of 10 equal clips tell no more than 20 clips do: the deviation is that of the means of 20."""
    values = normal(20, 3)[:, :1].repeat_interleave(10, 0)
    together = bootstrap(mean_of, [rows(values, 10)], 400)
    apart = bootstrap(mean_of, [rows(values)], 400)
    assert together is not None and apart is not None
    expected = float(values[::10].std(correction=0)) / math.sqrt(20)
    assert together.deviation == pytest.approx(expected, rel=0.15)
    assert apart.deviation < expected / 2


def test_nothing_to_draw_is_no_interval() -> None:
    assert bootstrap(mean_of, [rows(normal(10, 0)[:, :1])], 0) is None
    assert bootstrap(mean_of, [rows(normal(10, 0)[:, :1], 10)], 50) is None, "one video"


@pytest.mark.parametrize(("shift", "truth"), [(0.0, 0.0), (0.5, 0.25 * WIDTH)])
def test_bias_goes_along_the_line(shift: float, truth: float) -> None:
    """Over draws of 100 rows the raw distance is too large, and the extrapolated one is right within its own error."""
    raw, beyond = [], []
    for seed in range(30):
        sets = [rows(normal(100, seed)), rows(normal(100, seed + 100, shift))]
        found = extrapolate(frechet_of_samples, sets, WIDTH, seed)
        assert found is not None and found.slope > 0
        assert (found.rows[0], found.rows[-1]) == (25, 100)
        raw.append(frechet_of_samples(*(one.values for one in sets)))
        assert found.means[-1] == pytest.approx(raw[-1])
        beyond.append(found.value)
    error = np.std(beyond) / math.sqrt(len(beyond))
    assert np.mean(raw) - truth > 0.15
    assert abs(np.mean(beyond) - truth) < max(3 * error, 0.03)


def test_too_few_rows_for_their_width_are_not_extrapolated() -> None:
    assert extrapolate(frechet_of_samples, [rows(normal(14, 0)), rows(normal(300, 1))], WIDTH) is None
    assert extrapolate(mean_of, [rows(normal(3, 0)[:, :1])]) is None


def test_the_kernel_distance_has_no_bias() -> None:
    """Over many draws of 20 rows of one distribution its mean is 0 within its standard error; it may be negative."""
    drawn = [kernel_distance(normal(20, seed), normal(20, seed + 1000)) for seed in range(300)]
    assert abs(np.mean(drawn)) < 3 * np.std(drawn) / math.sqrt(len(drawn))
    assert min(drawn) < 0
    assert kernel_distance(normal(200, 0), normal(200, 1, 1.0)) > 5 * max(drawn)
    with pytest.raises(InputError, match="of one width"):
        kernel_distance(normal(5, 0), normal(5, 0)[:, :2])


def test_kernel_distance_by_hand() -> None:
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    # k(0,1) = 1, k(2,3) = 7³; across: k(0,·) = 1, k(1,2) = 3³, k(1,3) = 4³.
    assert kernel_distance(x, y) == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4)


def test_inception_scores_of_two_extremes() -> None:
    sure = torch.eye(5).repeat(4, 1)
    assert inception_score(sure)[0] == pytest.approx(5) and inception_score(sure, 4) == pytest.approx((5, 0))
    assert inception_score(torch.full((20, 5), 0.2), 2) == pytest.approx((1, 0))
    half = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert inception_score(half)[0] == pytest.approx(math.exp(entropy))
    assert inception_score(half, 2) == pytest.approx((1.5, 0.5)), "parts in order: [1, 2]"
    with pytest.raises(InputError, match="over 5 parts"):
        inception_score(half, 5)


def test_numbers_that_are_not_finite_are_told() -> None:
    with pytest.raises(InputError, match="not finite; use another --dtype"):
        rows(torch.tensor([[math.inf]]))
