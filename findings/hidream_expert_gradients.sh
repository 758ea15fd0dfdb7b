#!/usr/bin/env bash
# diffusers 0.42.1: gradients through HiDream's experts in evaluation mode.
#
# Expected: the gradient of a layer's output is the one that differences of the output have, in evaluation mode too (a
#   frozen network is mostly in it while an adapter or layers before it train, and where guidance takes gradients).
# Seen: MOEFeedForwardSwiGLU runs its experts under torch.no_grad in evaluation mode. The output holds their part and
#   the gradient does not, without a word: autograd gives what the shared expert alone gives. In training mode it is
#   right.
#
#   diffusers 0.42.1
#   training mode: autograd is within 0.1 % of differences
#   evaluation mode: autograd is 43% off
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check diffusers==0.42.1 torch==2.15.0 numpy==2.4.6 transformers==5.23.0 accelerate==1.15.0
venv/bin/python - <<'PY'
import sys

import diffusers
import torch
from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
layer = MOEFeedForwardSwiGLU(dim=16, hidden_dim=64, num_routed_experts=4, num_activated_experts=2)
with torch.no_grad():
    layer.gate.weight.normal_()
tokens, direction, weight = torch.randn(1, 8, 16), torch.randn(1, 8, 16), torch.randn(1, 8, 16)


def output(x):
    return (layer(x) * weight).sum()


def off():
    """How far autograd is from central differences, in the direction, as a share."""
    x = tokens.clone().requires_grad_()
    by_autograd = float((torch.autograd.grad(output(x), x)[0] * direction).sum())
    with torch.no_grad():
        by_differences = float(output(tokens + 1e-6 * direction) - output(tokens - 1e-6 * direction)) / 2e-6
    return abs(by_autograd - by_differences) / abs(by_differences)


print("diffusers", diffusers.__version__)
training = off()
layer.eval()
evaluation = off()
print(f"training mode: autograd is {'within 0.1 %' if training < 1e-3 else f'{training:.0%} off'} of differences")
print(f"evaluation mode: autograd is {evaluation:.0%} off")
sys.exit(training >= 1e-3 or evaluation < 0.1)
PY
