"""What results were when they were last kept: a few means of each for any machine, and hashes for the one that kept.

Bits differ between processors and versions of torch, so hashes are compared only where ``INFLATE_SAME_BITS`` is set. To
rebuild a room without changing a pixel: keep results before the first change (``python -m tests.same_pixels.keeping``,
which needs no commit), and run ``INFLATE_SAME_BITS=1 pytest tests/same_pixels`` after each; the fine-tunings alone
(``-k image_checkpoints``), for behind other trainings in one process their last bits are others.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

KEPT = Path(__file__).with_name("kept.json")
KEEPING, SAME_BITS = "INFLATE_KEEP_RESULTS", "INFLATE_SAME_BITS"
_PARTS = 48  # means per result
# Sampling makes much of a last bit, in which processors differ: of a range of 2 for pixels, of 1 for weights.
_TOLERANCE = 0.02


def summary(result: Tensor) -> dict[str, Any]:
    """SHA-256 of the numbers, and the means of equal parts of them."""
    values = result.detach().cpu().contiguous()
    means = torch.nn.functional.adaptive_avg_pool1d(values.double().reshape(1, 1, -1), _PARTS)
    digest = hashlib.sha256(values.numpy().tobytes()).hexdigest()
    return {"shape": list(values.shape), "sha256": digest, "means": [round(one, 4) for one in means.flatten().tolist()]}


def check(name: str, result: Tensor) -> None:
    """Fail unless ``result`` is what was kept under ``name``, bit for bit where that is asked for."""
    found, table = summary(result), json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    if os.environ.get(KEEPING):
        results = {**table, name: found}
        lines = [f" {json.dumps(one)}: {json.dumps(results[one])}" for one in sorted(results)]
        KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    kept = table[name]
    assert found["shape"] == kept["shape"], f"{name} has another shape"
    assert found["means"] == pytest.approx(kept["means"], abs=_TOLERANCE), f"{name} is another result"
    if os.environ.get(SAME_BITS):
        assert found["sha256"] == kept["sha256"], f"{name} differs by bits"


if __name__ == "__main__":
    KEPT.unlink(missing_ok=True)
    tests = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent)]
    sys.exit(subprocess.run(tests, env={**os.environ, KEEPING: "1"}, check=False).returncode)
