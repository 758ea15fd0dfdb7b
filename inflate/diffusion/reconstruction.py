"""Reconstruction guidance: a video model completes what is partly known (VDM, arXiv:2204.03458, section 3.1).

With ``x_hat(z_t)`` from one pass over all of ``z_t = [z^a, z^b]``, the approximation ``q(x^a | z_t) ~
N(x_hat^a(z_t), sigma_t^2 / alpha_t^2)`` turns Bayes' rule into eq. 7 (E7 of ``docs/diffusion.md``):

    ``x_tilde^b = x_hat^b - (w_r alpha_t / 2) grad_{z^b} ||x^a - x_hat^a(z_t)||^2``

The norm is a sum of squares, the gradient is with respect to the noisy ``z`` and goes through the network. ``w_r = 1``
is the derived value; the paper uses larger ones. Eq. 8 is the same with ``x^a`` a smaller video and the gradient taken
with respect to the whole of ``z``. It improves the replacement method, which it includes: ``z^a`` is overwritten at
each step by a draw that ``x^a`` allows.

Eq. 7 is the Gaussian rule ``E[x^b | z, x^a] = x_hat^b + V_ba V_aa^-1 (x^a - x_hat^a)`` with a ``V = Cov[x | z]`` read
from the network: ``V_ba`` is ``sigma^2 / alpha`` times its derivative (Tweedie), ``V_aa`` is ``sigma^2 / alpha^2``. A
small network that draws something else than what it is shown has no good derivative; ``spread_errors`` is the same rule
with a ``V`` that is given: what the network gets wrong in known frames, it gets wrong in the unknown ones near them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from inflate.diffusion.conversions import eps_from_x
from inflate.diffusion.processes import marginal
from inflate.diffusion.schedules import Level
from inflate.errors import InputError

# Of bundled:emoji's D^t on unseen clips, errors of frames far apart correlate by 0.6 to 0.7, of neighbours at 8 fps by
# 0.75 to 0.9. Where it does not know a thing at all, what it draws instead is the same in all frames: hence more.
FAR_CORRELATION, CORRELATION_SECONDS = 0.95, 0.45

View = Callable[[Tensor], Tensor]
Denoiser = Callable[[Tensor], Tensor]
"""``z_t`` to ``x_hat(z_t)``, of the same shape; differentiable."""


@dataclass(frozen=True)
class Constraint:
    """Something known of the clean sample: ``view(x)`` should be ``target``.

    Attributes:
        target: what is known, ``x^a``; any shape with the batch first.
        view: differentiable, from a clean sample (B, ...) to the shape of ``target``, each sample on its own.
        weight: ``w_r``; 0 leaves the constraint out.
    """

    target: Tensor
    view: View
    weight: float = 1.0

    def error(self, x: Tensor) -> Tensor:
        """``||target - view(x)||^2``, summed over everything: samples do not meet in it, so neither do gradients."""
        seen = self.view(x)
        if seen.shape != self.target.shape:
            raise InputError(
                f"What is known has shape {tuple(self.target.shape)} and the model's sample shows as "
                f"{tuple(seen.shape)}; they must be the same."
            )
        seen = seen.to(torch.promote_types(seen.dtype, torch.float32))  # a sum of squares overflows float16
        return (self.target.to(seen) - seen).square().sum()


class Guided(NamedTuple):
    """Clean samples of the shape of ``z``: what the network says, and what it says when it is told what is known."""

    plain: Tensor
    guided: Tensor


def down(video: Tensor, height: int, width: int) -> Tensor:
    """Videos (B, C, F, H, W) at ``height`` x ``width``, bilinear with antialiasing, frame by frame; differentiable."""
    batch, _, frames = video.shape[:3]
    pictures = video.transpose(1, 2).flatten(0, 1)
    small = functional.interpolate(pictures, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return small.unflatten(0, (batch, frames)).transpose(1, 2)


def frames_constraint(
    known: Tensor, mask: Tensor, weight: float = 1.0, decode: View | None = None, save_memory: bool = False
) -> Constraint:
    """E7 over frames: those where ``mask`` (F,) is True are known.

    Args:
        known: (B, c, F, h, w) of which the known frames are read, or the same in pixels with ``decode``.
        mask: (F,) bool.
        weight: ``w_r``.
        decode: latents (B, c, K, h, w) to pixels, where the frames are known as pixels; differentiable.
        save_memory: compute ``decode`` again for the gradient rather than keep what it made.
    """
    view = _seen_through(decode, save_memory)
    return Constraint(known[:, :, mask], lambda x: view(x[:, :, mask]), weight)


def smaller_constraint(
    low: Tensor, weight: float = 1.0, decode: View | None = None, save_memory: bool = False
) -> Constraint:
    """Eq. 8: the sample, brought to the size of ``low`` (B, C, F, h', w'), should be ``low``; arguments as above."""
    view, (height, width) = _seen_through(decode, save_memory), low.shape[-2:]
    return Constraint(low, lambda x: down(view(x), height, width), weight)


def _seen_through(decode: View | None, save_memory: bool) -> View:
    if decode is None:
        return lambda x: x
    if not save_memory:
        return decode

    def again(x: Tensor) -> Tensor:
        made = checkpoint(decode, x, use_reentrant=False)
        assert isinstance(made, Tensor)
        return made

    return again


def reconstruction_guidance(
    denoiser: Denoiser,
    z: Tensor,
    level: Level,
    constraints: Sequence[Constraint],
    unknown: Tensor | None = None,
) -> Guided:
    """Eq. 7 and 8, all constraints in one pass: ``x_hat - (alpha_t / 2) grad_z sum_i w_i ||x^a_i - view_i(x_hat)||^2``.

    Autocast is off for it, in which small gradients would be lost. Without a constraint of weight above 0 nothing is
    differentiated and both answers are the network's own, bit for bit.

    Args:
        denoiser: ``x_hat``; see ``Denoiser``. Give a model's gradient checkpointing to it to save memory.
        z: noisy samples (B, ...).
        level: of ``z``, one for all or one per sample.
        constraints: what is known.
        unknown: bool, broadcasts to ``z``; True for ``z^b``, whose gradient is taken. None is all of ``z`` (eq. 8).
    """
    active = [constraint for constraint in constraints if constraint.weight]
    if not active:
        with torch.no_grad():
            plain = denoiser(z)
        return Guided(plain, plain)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
        at = z.detach().clone().requires_grad_(True)
        x = denoiser(at)
        error = torch.stack([constraint.weight * constraint.error(x) for constraint in active]).sum()
        [gradient] = torch.autograd.grad(error, at)
    plain = x.detach()
    if unknown is not None:
        gradient = torch.where(unknown, gradient, torch.zeros_like(gradient))
    return Guided(plain, plain - level.like(z).alpha / 2 * gradient)


def error_correlation(
    num_frames: int, fps: float, far: float = FAR_CORRELATION, seconds: float = CORRELATION_SECONDS
) -> Tensor:
    """How errors ``x - x_hat`` of frames correlate: ``far + (1 - far) exp(-|i - j| / (fps seconds))``, (F, F) float64.

    Args:
        num_frames: F.
        fps: of the frames.
        far: what is common to all frames; below 1.
        seconds: in which the rest falls to 1 / e; above 0.
    """
    if not (0 <= far < 1 and seconds > 0 and fps > 0):
        raise InputError(
            f"far must lie in [0, 1), seconds and fps above 0; they are {far}, {seconds} and {fps}, and errors of "
            "frames cannot correlate so."
        )
    at = torch.arange(num_frames, dtype=torch.float64)
    return far + (1 - far) * torch.exp(-(at[:, None] - at).abs() / (fps * seconds))


def spread_errors(x: Tensor, known: Tensor, mask: Tensor, covariance: Tensor, weight: float = 1.0) -> Tensor:
    """``x_hat^b + w_r V_ba V_aa^-1 (x^a - x_hat^a)``: no gradient, no second pass; exact for Gaussians at ``w_r = 1``.

    Args:
        x: ``x_hat`` (B, c, F, h, w).
        known: the same shape, of which frames in ``mask`` are read.
        mask: (F,) bool, True where a frame is known.
        covariance: V between frames (F, F), the same for every pixel and channel; its scale does not matter.
        weight: ``w_r``.

    Returns:
        ``x`` with its unknown frames moved; known ones as the network gave them.
    """
    v = covariance.to("cpu", torch.float64)
    at = mask.to("cpu")
    taken = torch.zeros_like(v[:, at])
    taken[~at] = torch.linalg.solve(v[at][:, at], v[at][:, ~at]).T
    error = (known.to(x) - x)[:, :, mask.to(x.device)]
    return x + weight * torch.einsum("fk,bckhw->bcfhw", taken.to(x), error)


def draw_known(x: Tensor, level: Level, noise: Tensor) -> Tensor:
    """Replacement by a draw of ``q(z_s | x^a)``; ``noise`` standard normal of the shape of ``x``.

    The same noise at every step is what a deterministic sampler's own path would hold; new noise must be as correlated
    between known and unknown frames as in training.
    """
    return marginal(x, level).sample(noise)


def langevin_step(z: Tensor, x: Tensor, level: Level, noise: Tensor, size: float = 0.1) -> Tensor:
    """A corrector step: ``z - (delta / 2) sigma eps_hat(z) + sqrt(delta) sigma eps'`` (arXiv:2204.03458, section 3.1).

    Args:
        z: noisy sample.
        x: the clean one that the (guided) network sees in it.
        level: of ``z``.
        noise: ``eps'``, standard normal.
        size: delta.
    """
    sigma = level.like(z).sigma
    return z - size / 2 * sigma * eps_from_x(z, x, level) + size**0.5 * sigma * noise
