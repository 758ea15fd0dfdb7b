#!/usr/bin/env bash
# torch 2.13.0: torch.utils.flop_counter.FlopCounterMode around non-reentrant activation checkpointing.
#
# Expected: counting arithmetic changes no memory: a block that is computed again in the backward pass is gone when the
#   next one is, so what is held beside the kept inputs does not grow with the number of blocks.
# Seen: within FlopCounterMode much of each recomputed block stays alive until the cyclic garbage collector comes by, and
#   some of it (a norm's statistics here) until the end, because its ModuleTracker hooks what every module takes and gives.
#   The peak grows with depth as if less were checkpointed, so a memory estimate made while FLOPs are counted says too much.
#
#   torch 2.13.0
#   plain:   2 blocks 3.3 MB beside the kept inputs, 4 blocks 3.3 MB, 8 blocks 3.3 MB
#   counted: 2 blocks 3.3 MB beside the kept inputs, 4 blocks 5.4 MB, 8 blocks 6.5 MB
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check torch==2.13.0 numpy==2.3.4
venv/bin/python - <<'PY'
import sys
import weakref
from contextlib import nullcontext

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode


class Block(nn.Module):
    """A frozen residual block with a norm without weights, as diffusion transformers have."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(64, elementwise_affine=False), nn.Linear(64, 256), nn.Linear(256, 64)
        self.requires_grad_(False)

    def forward(self, rows):
        return rows + self.down(nn.functional.gelu(self.up(self.norm(rows.float()) * 2)))


class Alive(TorchDispatchMode):
    """Bytes of all storages that operations have made and that still live."""

    def __init__(self):
        super().__init__()
        self.bytes, self.peak, self.known = 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(one, torch.Tensor):
                self.note(one.untyped_storage())
        self.peak = max(self.peak, self.bytes)
        return made

    def note(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known[key] = weakref.ref(storage, lambda _: self.forget(key, size))
            self.bytes += size

    def forget(self, key, size):
        del self.known[key]
        self.bytes -= size


def beside(count, counted):
    """Megabytes at the peak, beside what the forward pass keeps."""
    first, blocks, alive = nn.Linear(64, 64), [Block() for _ in range(count)], Alive()
    with FlopCounterMode(display=False) if counted else nullcontext(), alive:
        rows = first(torch.ones(1000, 64))
        for block in blocks:
            rows = checkpoint(block, rows, use_reentrant=False)
        kept = alive.bytes
        rows.square().mean().backward()
    return round((alive.peak - kept) / 1e6, 1)


print(f"torch {torch.__version__.partition('+')[0]}")
found = {}
for name, counted in (("plain:  ", False), ("counted:", True)):
    found[counted] = [beside(count, counted) for count in (2, 4, 8)]
    few, more, most = found[counted]
    print(f"{name} 2 blocks {few} MB beside the kept inputs, 4 blocks {more} MB, 8 blocks {most} MB")
plain, counted = found[False], found[True]
sys.exit(not (plain[0] == plain[2] and counted[0] < counted[1] < counted[2]))
PY
