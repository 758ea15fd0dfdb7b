"""The latent motion of Text2Video-Zero, against hand-made pictures and moments."""

import torch

from inflate.diffusion.latent_motion import renoised, translated_frames


def test_frames_are_the_picture_moved_by_whole_cells() -> None:
    picture = torch.arange(2 * 3 * 6 * 8, dtype=torch.float64).reshape(2, 3, 6, 8)
    frames = translated_frames(picture, 3, (1 / 8, 2 / 6))
    assert frames.shape == (2, 3, 3, 6, 8)
    assert torch.equal(frames[:, :, 0], picture)
    for number in (1, 2):
        right, down = number, 2 * number
        # What was at the left and top is now further right and further down.
        assert torch.equal(frames[:, :, number, down:, right:], picture[..., : 6 - down, : 8 - right])
        mirrored = torch.cat([picture[..., :right].flip(-1), picture], dim=-1)[..., :8]
        assert torch.equal(frames[:, :, number, down:], mirrored[..., : 6 - down, :])
    assert torch.equal(translated_frames(picture, 2, (0.0, 0.0))[:, :, 1], picture)


def test_renoising_is_the_forward_process() -> None:
    """x_T' = sqrt(a) x + sqrt(1 - a) e must become sqrt(b) x + sqrt(1 - b) e', in mean and variance."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.15, dtype=torch.float64)
    clean = torch.full((200_000,), 1.7, dtype=torch.float64)
    early = a.sqrt() * clean + (1 - a).sqrt() * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    late = renoised(early, a, b, torch.randn(clean.shape, generator=generator, dtype=clean.dtype))
    torch.testing.assert_close(late.mean(), b.sqrt() * 1.7, rtol=0, atol=0.01)
    torch.testing.assert_close(late.var(), 1 - b, rtol=0.01, atol=0)
    assert torch.equal(renoised(early, a, a, torch.randn_like(early)), early)
