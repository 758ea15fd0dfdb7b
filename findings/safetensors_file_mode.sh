#!/usr/bin/env bash
# safetensors 0.8.0, with 0.7.0 beside it.
#
# Expected: save_file makes a file as open() does, with the rights that the umask leaves, and writing over a file keeps
#   its rights; 0.7.0 does both.
# Seen: 0.8.0 writes to a temporary file that only its owner can read, and renames it: every file it writes is 0600,
#   whatever the umask, and one that the group could read and write before is no longer. What diffusers, transformers and
#   PEFT save with it can then not be read by the server that runs as another user.
#
#   safetensors 0.7.0: new file 0644, over a file of 0664: 0664
#   safetensors 0.8.0: new file 0600, over a file of 0664: 0600
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
umask 022
python3 -m venv venv
for version in 0.7.0 0.8.0; do
    venv/bin/pip install -qq --disable-pip-version-check "safetensors==$version" numpy==2.3.4
    venv/bin/python - <<'PY'
import os
import sys

import numpy as np
import safetensors
from safetensors.numpy import save_file


def mode(path):
    """The rights of a file, as chmod takes them."""
    return f"{os.stat(path).st_mode & 0o777:04o}"


for path in ("new.safetensors", "shared.safetensors"):
    if os.path.exists(path):
        os.remove(path)
with open("shared.safetensors", "wb"):
    os.chmod("shared.safetensors", 0o664)
for path in ("new.safetensors", "shared.safetensors"):
    save_file({"weight": np.zeros(4)}, path)
found = mode("new.safetensors"), mode("shared.safetensors")
print(f"safetensors {safetensors.__version__}: new file {found[0]}, over a file of 0664: {found[1]}")
wanted = {"0.7.0": ("0644", "0664"), "0.8.0": ("0600", "0600")}
sys.exit(found != wanted[safetensors.__version__])
PY
done
