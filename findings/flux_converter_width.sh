#!/usr/bin/env bash
# diffusers 0.42.1: FLUX checkpoints of another width than FLUX.1's.
#
# Expected: the conversion of FLUX's original layout, which knows the number of blocks from the file, knows the width from
#   it too; FluxTransformer2DModel itself takes any (num_attention_heads, attention_head_dim).
# Seen: convert_flux_transformer_checkpoint_to_diffusers has the width 3072 written into it. A small FLUX, such as a test's
#   or a distilled one's, ends in torch's error about split sizes rather than in a model or a sentence.
#
#   diffusers 0.42.1
#   width 3072: converted, 1 single block
#   width 64: RuntimeError
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
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers as converted


def original(width):
    """The original layout's names for one double and one single block, on the meta device."""
    shapes = {}

    def linear(name, rows, columns):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    for name in ("img_in", "txt_in"):
        linear(name, width, 64)
    for name in ("time_in", "vector_in"):
        linear(f"{name}.in_layer", width, 256)
        linear(f"{name}.out_layer", width, width)
    for side in ("img", "txt"):
        block = f"double_blocks.0.{side}"
        linear(f"{block}_mod.lin", 6 * width, width)
        linear(f"{block}_attn.qkv", 3 * width, width)
        linear(f"{block}_attn.proj", width, width)
        linear(f"{block}_mlp.0", 4 * width, width)
        linear(f"{block}_mlp.2", width, 4 * width)
        shapes[f"{block}_attn.norm.query_norm.scale"] = shapes[f"{block}_attn.norm.key_norm.scale"] = (32,)
    single = "single_blocks.0"
    linear(f"{single}.modulation.lin", 3 * width, width)
    linear(f"{single}.linear1", 7 * width, width)
    linear(f"{single}.linear2", width, 5 * width)
    shapes[f"{single}.norm.query_norm.scale"] = shapes[f"{single}.norm.key_norm.scale"] = (32,)
    linear("final_layer.linear", 64, width)
    linear("final_layer.adaLN_modulation.1", 2 * width, width)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


print("diffusers", diffusers.__version__)
found = {}
for width in (3072, 64):
    try:
        made = converted(original(width))
        found[width] = f"converted, {len({key.split('.')[1] for key in made if key.startswith('single')})} single block"
    except Exception as error:  # which kind is what this script tells
        found[width] = type(error).__name__
    print(f"width {width}: {found[width]}")
sys.exit(found != {3072: "converted, 1 single block", 64: "RuntimeError"})
PY
