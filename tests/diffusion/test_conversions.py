"""x, eps, v and flow velocity, each read as each other, over the whole range of levels."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inflate.diffusion import conversions as c
from inflate.diffusion.schedules import Level, cosine, from_angle, from_log_snr, rectified_flow
from inflate.errors import InputError

KINDS = ("sample", "epsilon", "v_prediction")
# eps meets v and u without the way through x, which loses eps where sigma is 0 and is unknown where alpha is 0.
DIRECT = {
    ("v_prediction", "epsilon"): c.eps_from_v,
    ("epsilon", "v_prediction"): c.v_from_eps,
    ("flow_prediction", "epsilon"): c.eps_from_flow,
    ("epsilon", "flow_prediction"): c.flow_from_eps,
}
values = st.floats(-10, 10)


def numbers(x: float, eps: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(x, dtype=torch.float64), torch.tensor(eps, dtype=torch.float64)


def convert(z: Tensor, predicted: Tensor, level: Level, kind: str, wanted: str) -> Tensor:
    """A prediction of one kind as another."""
    if kind == wanted:
        return predicted
    if (kind, wanted) in DIRECT:
        return DIRECT[kind, wanted](z, predicted, level)
    return c.from_x(z, c.to_x(z, predicted, level, kind), level, wanted)


def seen(x: Tensor, eps: Tensor, level: Level) -> tuple[Tensor, dict[str, Tensor]]:
    """z and what a perfect network would predict, in each kind."""
    return level.alpha * x + level.sigma * eps, {
        "sample": x,
        "epsilon": eps,
        "v_prediction": level.alpha * eps - level.sigma * x,
        "flow_prediction": eps - x,
    }


def test_the_numbers_of_e4() -> None:
    x, eps = numbers(2, -1)
    angle = torch.tensor(math.pi / 3, dtype=torch.float64)
    level = from_angle(angle)
    z, made = seen(x, eps, level)
    assert float(z) == pytest.approx(0.1339745962, abs=1e-10)
    v = c.v_from_both(x, eps, level)
    assert float(v) == pytest.approx(-2.2320508076, abs=1e-10) and v == made["v_prediction"]
    assert float(c.x_from_v(z, v, level)) == pytest.approx(2, abs=1e-15)
    assert float(c.eps_from_v(z, v, level)) == pytest.approx(-1, abs=1e-15)
    assert float(x**2 + eps**2) == pytest.approx(float(z**2 + v**2), abs=1e-14) == 5


def test_v_is_how_z_turns() -> None:
    # dz/dphi by automatic differentiation.
    x, eps = numbers(2, -1)
    angle = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (angle.cos() * x + angle.sin() * eps).backward()
    assert angle.grad is not None
    torch.testing.assert_close(c.v_from_both(x, eps, from_angle(angle.detach())), angle.grad)


@pytest.mark.parametrize(("kind", "wanted"), list(itertools.product(KINDS, repeat=2)))
@given(x=values, eps=values, log_snr=st.floats(-20, 20))
def test_every_conversion_and_back(kind: str, wanted: str, x: float, eps: float, log_snr: float) -> None:
    level = from_log_snr(torch.tensor(log_snr, dtype=torch.float64))
    z, made = seen(*numbers(x, eps), level)
    converted = convert(z, made[kind], level, kind, wanted)
    # Rounding of z (1e-16 of 10) is divided by alpha or sigma, 4.5e-5 at the least.
    torch.testing.assert_close(converted, made[wanted], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(convert(z, converted, level, wanted, kind), made[kind], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "wanted"), list(itertools.product(("sample", "epsilon", "flow_prediction"), repeat=2))
)
@given(x=values, eps=values, time=st.floats(1e-4, 1 - 1e-4))
def test_every_conversion_of_a_flow(kind: str, wanted: str, x: float, eps: float, time: float) -> None:
    level = rectified_flow(torch.tensor(time, dtype=torch.float64))
    z, made = seen(*numbers(x, eps), level)
    torch.testing.assert_close(convert(z, made[kind], level, kind, wanted), made[wanted], rtol=1e-9, atol=1e-9)


@given(x=values, eps=values, log_snr=st.floats(-700, 700))
def test_six_conversions_at_any_level(x: float, eps: float, log_snr: float) -> None:
    level = from_log_snr(torch.tensor(log_snr, dtype=torch.float64))
    z, made = seen(*numbers(x, eps), level)
    # v to both is a rotation: exact at every level. The others are exact only where they need not divide.
    torch.testing.assert_close(c.x_from_v(z, made["v_prediction"], level), made["sample"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(c.eps_from_v(z, made["v_prediction"], level), made["epsilon"], rtol=1e-12, atol=1e-12)
    norm = made["sample"] ** 2 + made["epsilon"] ** 2
    torch.testing.assert_close(z**2 + made["v_prediction"] ** 2, norm, rtol=1e-12, atol=1e-12)
    for kind, wanted in itertools.product(KINDS, repeat=2):
        assert torch.isfinite(convert(z, made[kind], level, kind, wanted))


@pytest.mark.parametrize("level_of", [cosine, rectified_flow])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_both_ends(level_of, dtype: torch.dtype) -> None:
    level = level_of(torch.tensor([0.0, 1.0], dtype=dtype))
    x, eps = torch.randn(2, 2, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    z, made = seen(x, eps, level.like(x))
    kinds = KINDS if level_of is cosine else ("sample", "epsilon", "flow_prediction")
    for kind, wanted in itertools.product(kinds, repeat=2):
        assert torch.isfinite(convert(z, made[kind], level, kind, wanted)).all(), (kind, wanted)
    # What is known at an end is exact there: x and v's or u's x at alpha = 0, eps from v or u at sigma = 0.
    turning = kinds[-1]
    torch.testing.assert_close(c.to_x(z, made[turning], level, turning), x)
    torch.testing.assert_close(convert(z, made[turning], level, turning, "epsilon"), eps)
    assert (c.x_from_eps(z, eps, level)[1] == 0).all() and (c.eps_from_x(z, x, level)[0] == 0).all()


def test_shapes_and_dtype_stay() -> None:
    level = cosine(torch.tensor([0.2, 0.9], dtype=torch.float64))
    z = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    for kind in c._TO_X:
        assert c.to_x(z, z, level, kind).shape == z.shape and c.from_x(z, z, level, kind).dtype == z.dtype


def test_an_unknown_kind_is_named() -> None:
    level = cosine(torch.tensor(0.5))
    with pytest.raises(InputError, match=r"'velocity' is unknown.*use sample, epsilon, v_prediction, flow_prediction"):
        c.to_x(torch.ones(1), torch.ones(1), level, "velocity")
