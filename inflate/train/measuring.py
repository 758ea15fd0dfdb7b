"""A small step for real, in a process of its own: how long it takes, and how much memory the process has then.

``python -m inflate.train.measuring`` reads what to run from its standard input and prints what it found; the process is
new, so that nothing but this step is in its memory.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.train.planned import Planned, loss_of, meta_inputs, meta_network

UPDATES = 3
_SECONDS = 900
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Measured:
    """Of one update: ``seconds`` forward and backward of a micro-batch, ``update_seconds`` clipping, AdamW and EMA.

    ``cpu_seconds`` is the processor time of forward and backward. ``base``: bytes of the process before there is a
    network, ``peak``: at most.
    """

    seconds: float
    update_seconds: float
    cpu_seconds: float
    base: int
    peak: int


def measure(planned: Planned, device: str) -> Measured:
    """Run ``planned`` for a few updates, with random weights, in a new process.

    Raises:
        InputError: the process came to no result, for instance for want of memory.
    """
    told = json.dumps({"planned": asdict(planned), "device": device})
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "inflate.train.measuring"],
            input=told,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env=os.environ | {"PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"A small step took longer than {_SECONDS} s; plan with --no-measure.") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"A small step could not be run to measure it ({last}); plan with --no-measure.")
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


class Trial:
    """The parts of an update of the loop, on random weights: forward, backward, clipping, AdamW, EMA."""

    def __init__(self, planned: Planned, device: torch.device) -> None:
        from diffusers.training_utils import EMAModel

        torch.manual_seed(0)
        self.planned, self.device = planned, device
        network = meta_network(planned)
        self.inputs = _on_device(meta_inputs(planned, network), device)
        network.to_empty(device=device)
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.zero_() if not tensor.is_floating_point() or tensor.ndim < 2 else tensor.normal_(0, 0.02)
        self.loss: Callable[[Any], Tensor] = loss_of(network)
        self.trained: list[nn.Parameter] = [value for value in network.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)
        self.ema = EMAModel(self.trained, decay=0.999)

    def update(self) -> tuple[float, float, float]:
        """Seconds and processor seconds of forward and backward, and seconds of what follows."""
        begun, processor = self._now(), time.process_time()
        for _ in range(self.planned.accumulation):
            with torch.autocast(self.device.type, self.planned.autocast, self.planned.autocast is not None):
                loss = self.loss(self.inputs)
            loss.backward()
        middle, used = self._now(), time.process_time() - processor
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.trained)
        return middle - begun, used, self._now() - middle

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def process_bytes(peak: bool = False) -> int:
    """Bytes of this process in memory, or the most there were; 0 where the system does not say."""
    if not _STATUS.is_file():
        return 0
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(name)) * 1024


def run(planned: Planned, device: torch.device, updates: int = UPDATES) -> Measured:
    """Run updates in this process; the fastest but the first counts."""
    warm_up(device)
    base = process_bytes()
    trial = Trial(planned, device)
    times = [trial.update() for _ in range(updates)]
    peak = process_bytes(peak=True)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.max_memory_reserved(device)
        base, peak = total - free - torch.cuda.memory_reserved(device), total - free
        peak = base + reserved
    best = min(times[1:] or times)
    return Measured(best[0], min(one[2] for one in times), best[1], base, peak)


def warm_up(device: torch.device) -> None:
    """Load the libraries that every network uses, so that they count as the process's own."""
    network = nn.Sequential(nn.Conv2d(32, 32, 3), nn.GroupNorm(8, 32), nn.SiLU(), nn.Flatten(), nn.Linear(32 * 36, 8))
    network = network.to(device)
    network(torch.randn(2, 32, 8, 8, device=device)).square().mean().backward()
    torch.optim.AdamW(network.parameters(), fused=True).step()
    heads = torch.randn(2, 4, 64, 16, device=device, requires_grad=True)
    nn.functional.scaled_dot_product_attention(heads, heads, heads).sum().backward()
    del network, heads
    gc.collect()


def _on_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {key: _on_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_device(item, device) for item in value]
    if not isinstance(value, Tensor):
        return value
    whole = not value.is_floating_point()
    return torch.ones(value.shape, dtype=value.dtype, device=device) if whole else torch.randn(value.shape).to(device)


def main() -> None:
    """Measure what the standard input says."""
    told = json.load(sys.stdin)
    print(json.dumps(asdict(run(Planned(**told["planned"]), torch.device(told["device"])))))


if __name__ == "__main__":
    main()
