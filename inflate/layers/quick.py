"""What layers do on a CPU without gradients, in place of their formulas: see `inflate/layers/inference.py`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inflate.layers.attention import TemporalAttention
from inflate.layers.convolution import TemporalConv
from inflate.layers.inference import QUICK_WAYS, has_own_way
from inflate.layers.motion_module import FrameAttention, GEGLUFeedForward, MotionModule
from inflate.layers.positions import rotate, sinusoidal_positions

# Numbers inside a feed-forward at once, and tokens at least (each part reads all weights).
FEED_FORWARD_NUMBERS = 2**21
MIN_ROWS = 512


def depthwise_conv(layer: TemporalConv, states: Tensor, num_frames: int) -> Tensor | None:
    """For each tap a scaled sum of the frames, none of them copied."""
    if not (layer.depthwise and has_own_way(states, layer.bias)):
        return None
    changed = torch.empty_like(states)
    frames, answer = (one.unflatten(0, (-1, num_frames)) for one in (states, changed))
    half = layer.kernel_size // 2
    taps = layer.weight[:, 0, :, None, None].unbind(1)
    torch.addcmul(layer.bias[:, None, None], frames, taps[half], out=answer)
    for shift in range(1, min(half, num_frames - 1) + 1):
        answer[:, shift:].addcmul_(frames[:, :-shift], taps[half - shift])
        answer[:, :-shift].addcmul_(frames[:, shift:], taps[half + shift])
    return changed


def attention(layer: TemporalAttention, states: Tensor, num_frames: int) -> Tensor | None:
    """One video at a time; the output projection adds to its input, in that one's layout."""
    if not (has_own_way(states, layer.identity_witness(), layer.to_out) and states.is_contiguous()):
        return None
    changed = torch.empty_like(states)
    for frames, answer in zip(*(one.unflatten(0, (-1, num_frames)) for one in (states, changed)), strict=True):
        tokens = layer.norm(_tokens_of(frames) if frames.ndim == 4 else frames)
        if layer.position == "sinusoidal":
            tokens += sinusoidal_positions(num_frames, layer.dim, tokens.device).to(tokens.dtype)[:, None]
        query, key, value = (project(tokens) for project in (layer.to_q, layer.to_k, layer.to_v))
        del tokens
        if layer.position == "rotary":
            query, key = (_rotated(one, layer.num_heads) for one in (query, key))
        attended = _attend(query, key, value, layer.num_heads, layer.bias_of(num_frames, query))
        del query, key, value
        if frames.ndim == 4:
            _add_to_pictures(frames.flatten(2), attended, layer.to_out, answer.flatten(2))
        else:
            _add_to_tokens(frames, attended, layer.to_out, answer)
    return changed


def motion_module(module: MotionModule, states: Tensor, num_frames: int) -> Tensor | None:
    """One video at a time, its states as ``(F, N, C)`` throughout."""
    projections = [module.proj_in, module.proj_out]
    for block in module.blocks():
        projections += [block.attn1.to_out[0], block.attn2.to_out[0], *block.ff.projections()]
    if not (states.is_contiguous() and has_own_way(states, module.identity_witness(), *projections)):
        return None
    changed = torch.empty_like(states)
    for frames, answer in zip(
        *(one.unflatten(0, (-1, num_frames)).flatten(3) for one in (states, changed)), strict=True
    ):
        inner = _project_in(module, frames)
        for block in module.blocks():
            _add_attention(inner, block.norm1(inner), block.attn1)
            _add_attention(inner, block.norm2(inner), block.attn2)
            _add_feed_forward(inner, block.norm3(inner), block.ff)
        _add_to_pictures(frames, inner, module.proj_out, answer)
    return changed


QUICK_WAYS.update({TemporalConv: depthwise_conv, TemporalAttention: attention, MotionModule: motion_module})


def _tokens_of(pictures: Tensor) -> Tensor:
    """``(F, C, H, W)`` to a new ``(F, N, C)``. Frame by frame: only of a matrix does torch copy the transpose fast."""
    channels_by_pixels = pictures.flatten(2)
    tokens = pictures.new_empty(pictures.shape[0], channels_by_pixels.shape[2], pictures.shape[1])
    for frame, picture in zip(tokens, channels_by_pixels, strict=True):
        frame.copy_(picture.t())
    return tokens


def _rotated(states: Tensor, num_heads: int) -> Tensor:
    """``(F, N, heads * d)``, each head's channels turned by the frame."""
    by_head = states.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)
    return rotate(by_head).permute(2, 0, 1, 3).flatten(2)


def _attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int, bias: Tensor | None = None) -> Tensor:
    """Attention of each token over its frames: ``(F, N, D)`` each, to ``(F, N, D)``, a view of ``(N, F, D)``."""
    q, k, v = (one.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for one in (query, key, value))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return attended.transpose(1, 2).flatten(2).transpose(0, 1)


def _add_to_pictures(pictures: Tensor, tokens: Tensor, projection: nn.Linear, answer: Tensor) -> None:
    """``pictures`` (F, C, N) and the projection of ``tokens`` (F, N, D), into ``answer`` (F, C, N)."""
    torch.baddbmm(pictures, projection.weight.expand(len(tokens), -1, -1), tokens.transpose(1, 2), out=answer)
    answer += projection.bias[:, None]


def _add_to_tokens(states: Tensor, tokens: Tensor, projection: nn.Linear, answer: Tensor) -> None:
    """``states`` (F, N, C) and the projection of ``tokens`` (F, N, D), into ``answer`` (F, N, C)."""
    torch.baddbmm(states, tokens, projection.weight.t().expand(len(tokens), -1, -1), out=answer)
    answer += projection.bias


def _project_in(module: MotionModule, frames: Tensor) -> Tensor:
    """``proj_in(norm(frames))``, ``(F, C, N)`` to ``(F, N, C)``; a norm over a video is folded into the weights."""
    weight, bias = module.proj_in.weight, module.proj_in.bias
    if module.norm_over_video:
        groups = frames.unflatten(1, (module.norm.num_groups, -1))
        variance, mean = torch.var_mean(groups, dim=(0, 2, 3), correction=0)
        scale = (variance + module.norm.eps).rsqrt_()
        per_group = module.channels // module.norm.num_groups
        scale, mean = scale.repeat_interleave(per_group), mean.repeat_interleave(per_group)
        scale = scale * module.norm.weight
        bias = torch.addmv(bias, weight, module.norm.bias - mean * scale)
        weight = weight * scale
    else:
        frames = module.norm(frames)
    return torch.baddbmm(bias, frames.transpose(1, 2), weight.t().expand(frames.shape[0], -1, -1))


def _add_attention(states: Tensor, normed: Tensor, layer: FrameAttention) -> None:
    """Add the attention's answer for ``normed`` to ``states``, both ``(F, N, C)``; ``normed`` is changed too."""
    normed += layer.pe[0, : len(states), None]
    query, key, value = (project(normed) for project in (layer.to_q, layer.to_k, layer.to_v))
    projection = layer.to_out[0]
    assert isinstance(projection, nn.Linear), "looked at before"
    _add_to_tokens(states, _attend(query, key, value, layer.num_heads), projection, states)


def _add_feed_forward(states: Tensor, normed: Tensor, layer: GEGLUFeedForward) -> None:
    """Add the answer for ``normed`` to ``states``, both ``(F, N, C)``; in parts that stay in the cache."""
    wide, narrow = layer.projections()
    weights, biases = wide.weight.chunk(2), wide.bias.chunk(2)
    num_rows = max(MIN_ROWS, FEED_FORWARD_NUMBERS // wide.out_features)
    for rows, part in zip(states.flatten(0, 1).split(num_rows), normed.flatten(0, 1).split(num_rows), strict=True):
        gate = F.gelu(F.linear(part, weights[1], biases[1]))
        gate *= F.linear(part, weights[0], biases[0])
        torch.addmm(rows, gate, narrow.weight.t(), out=rows).add_(narrow.bias)
