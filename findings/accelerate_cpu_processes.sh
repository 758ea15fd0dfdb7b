#!/usr/bin/env bash
# accelerate 1.15.0 (with torch 2.15.0).
#
# Expected: `accelerate launch --cpu --num_processes 2 script.py` starts two processes, as --num_processes says ("the
#   total number of processes to be launched in parallel"), or refuses.
# Seen: it starts one, without RANK and WORLD_SIZE, and says nothing: on a CPU the "simple launcher" is taken, which knows
#   of no number. A training meant for two processes runs with half its global batch. torchrun starts two on the same
#   machine.
#
#   accelerate launch --cpu --num_processes 2: 1 process, world size None
#   torchrun --nproc_per_node 2:               2 processes, world size 2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check accelerate==1.15.0 torch
cat > script.py <<'PY'
import os

print("process of world size", os.environ.get("WORLD_SIZE"), flush=True)
PY
export OMP_NUM_THREADS=1
echo "accelerate launch --cpu --num_processes 2:"
venv/bin/accelerate launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no script.py
echo "torchrun --nproc_per_node 2:"
venv/bin/torchrun --nproc_per_node 2 script.py
PY_STARTED=$(venv/bin/accelerate launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no \
  --dynamo_backend no script.py | wc -l)
test "$PY_STARTED" -eq 1 && echo "seen: 1 process of 2"
