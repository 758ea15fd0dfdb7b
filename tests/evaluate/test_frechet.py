import math

import pytest
import torch

from inflate.errors import InputError
from inflate.evaluate.frechet import Gaussian, fit_gaussian, frechet_distance


def gaussian(mean: list[float], covariance: list[list[float]]) -> Gaussian:
    return Gaussian(torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64))


def test_commuting_gaussians_have_the_sum_of_squared_differences():
    first = gaussian([0.0, 1.0], [[4.0, 0.0], [0.0, 9.0]])
    second = gaussian([3.0, 1.0], [[1.0, 0.0], [0.0, 16.0]])
    assert frechet_distance(first, second) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 4) ** 2, abs=1e-12)


def test_gaussians_that_do_not_commute_agree_with_the_closed_form_of_two_dimensions():
    first, second = gaussian([0, 0], [[2.0, 0.5], [0.5, 1.0]]), gaussian([0, 0], [[1.0, -0.6], [-0.6, 3.0]])
    product = first.covariance @ second.covariance
    assert not torch.allclose(product, product.T)
    # For 2 x 2: tr(A^1/2) = sqrt(tr A + 2 sqrt(det A)).
    trace_of_root = math.sqrt(float(product.trace()) + 2 * math.sqrt(float(torch.linalg.det(product))))
    expected = 3 + 4 - 2 * trace_of_root
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-12)
    assert frechet_distance(second, first) == pytest.approx(expected, abs=1e-12)


def test_fewer_pictures_than_features_still_have_distance_zero_to_themselves():
    features = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    fitted = fit_gaussian(features)
    assert frechet_distance(fitted, fitted) == pytest.approx(0, abs=1e-6)
    moved = fit_gaussian(features + 1)
    assert frechet_distance(fitted, moved) == pytest.approx(40, abs=1e-4)


def test_fit_by_hand():
    fitted = fit_gaussian(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
    assert fitted.mean.tolist() == [1.0, 2.0]
    assert fitted.covariance.tolist() == [[2.0, 4.0], [4.0, 8.0]]


def test_refusals():
    with pytest.raises(InputError, match="at least 2 rows"):
        fit_gaussian(torch.zeros(1, 3))
    with pytest.raises(InputError, match="different width: 1 and 2"):
        frechet_distance(gaussian([0], [[1.0]]), gaussian([0, 0], [[1.0, 0], [0, 1.0]]))
