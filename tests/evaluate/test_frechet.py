import math

import pytest
import torch

from inflate.errors import InputError
from inflate.evaluate.frechet import Gaussian, fit_gaussian, frechet_distance, frechet_of_samples


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


@pytest.mark.parametrize(("rows", "width"), [((40, 30), 6), ((7, 5), 60)])
def test_from_samples_it_is_the_same_with_more_and_with_fewer_rows_than_features(rows, width):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(count, width, generator=generator) * (index + 1) for index, count in enumerate(rows))
    expected = frechet_distance(fit_gaussian(first), fit_gaussian(second))
    # The root of covariances without full rank takes roots of rounding errors: about 1e-8 for each missing dimension.
    assert frechet_of_samples(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_of_samples(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_of_samples(first, first.double() + 0.5) == pytest.approx(0.25 * width, rel=1e-6)


def test_samples_far_wider_than_many_and_all_alike_are_no_trouble():
    features = torch.full((50, 2560), 3.0)
    assert frechet_of_samples(features, features + 2) == pytest.approx(4 * 2560)
    with pytest.raises(InputError, match="at least 2 rows"):
        frechet_of_samples(features[:1], features)
    with pytest.raises(InputError, match="different width: 2560 and 10"):
        frechet_of_samples(features, features[:, :10])
    with pytest.raises(InputError, match="finite features"):
        frechet_of_samples(features * float("nan"), features)


def test_fit_by_hand():
    fitted = fit_gaussian(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
    assert fitted.mean.tolist() == [1.0, 2.0]
    assert fitted.covariance.tolist() == [[2.0, 4.0], [4.0, 8.0]]


def test_refusals():
    with pytest.raises(InputError, match="at least 2 rows"):
        fit_gaussian(torch.zeros(1, 3))
    with pytest.raises(InputError, match="different width: 1 and 2"):
        frechet_distance(gaussian([0], [[1.0]]), gaussian([0, 0], [[1.0, 0], [0, 1.0]]))
