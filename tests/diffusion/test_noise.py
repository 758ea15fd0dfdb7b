import pytest
import torch

from inflate.diffusion.noise import mix_noise
from inflate.errors import InputError


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_frames_stay_standard_normal_and_correlate_by_the_share(share):
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(1, 4, 3, 200, 200, dtype=torch.float64, generator=generator)
    shared = torch.randn(1, 4, 1, 200, 200, dtype=torch.float64, generator=generator)
    frames = mix_noise(own, shared, share).transpose(1, 2).flatten(2)[0]
    expected = torch.full((3, 3), share, dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(torch.cov(frames), expected, atol=0.01, rtol=0)


def test_ends_are_exact():
    own, shared = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 3, 1, 5, 5)
    assert torch.equal(mix_noise(own, shared, 0.0), own)
    assert torch.equal(mix_noise(own, shared, 1.0), shared.expand_as(own))


def test_a_share_outside_its_range_is_refused():
    with pytest.raises(InputError, match=r"is 1\.5; it must lie between 0 and 1"):
        mix_noise(torch.zeros(1, 1, 2, 1, 1), torch.zeros(1, 1, 1, 1, 1), 1.5)


def test_each_video_may_have_a_share_of_its_own() -> None:
    own, shared = torch.randn(3, 2, 4, 5, 5), torch.randn(3, 2, 1, 5, 5)
    shares = [0.0, 0.3, 1.0]
    mixed = mix_noise(own, shared, torch.tensor(shares, dtype=torch.float64))
    for number, share in enumerate(shares):
        alone = mix_noise(own[number : number + 1], shared[number : number + 1], share)
        torch.testing.assert_close(mixed[number : number + 1], alone)
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        mix_noise(own, shared, torch.tensor([0.0, 0.5, 1.1]))
