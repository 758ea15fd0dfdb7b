"""What temporal layers cost at Stable Diffusion's size, interleaved in one run: A, B, C, ..., A, B, C, ...

The floor is the image model on the same frames. Every row is a network of the same random image weights (held once, and
shared by all of them), answering one video:

- *floor*: diffusers' `UNet2DConditionModel` on the frames, each with its own copy of the text;
- *SCHEME at start*: inflated, every temporal layer still the identity; its answer must have the floor's very bits;
- *SCHEME trained*: every temporal weight has a random value, as after training;
- *UNetMotionModel*: diffusers' AnimateDiff with the very weights of *animatediff-v2 trained*; the answers must agree.

Times are wall-clock; ratios are those of one round, so that a busy machine slows both sides (processor time, which is
kept too, hardly feels what else runs). FLOPs are counted by
`torch.utils.flop_counter`. Memory is the peak of one forward pass beyond weights and inputs, each in a process of its
own on a CPU. On a GPU the achieved TFLOP/s and GB/s (weights read once) stand beside the times.

    python benchmarks/bench_stable_diffusion.py
    python benchmarks/bench_stable_diffusion.py --size tiny --rounds 3
    python benchmarks/bench_stable_diffusion.py --device cuda --dtype bfloat16 --compile --frames 16 --resolution 512
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import inflate
from inflate.inflater import SCHEMES, InflatedModel

CONFIGS = Path(__file__).resolve().parents[1] / "tests" / "inflater" / "configs"
TEXT_TOKENS = 77
LATENT_FACTOR = 8  # pixels of a latent's side
SCALE = 0.02
TINY = {
    "block_out_channels": (32, 64, 64, 64),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "sample_size": 16,
}
ROWS = (
    "floor",
    "make-a-video at start",
    "make-a-video trained",
    "animatediff-v2 at start",
    "animatediff-v2 trained",
    "UNetMotionModel",
    "lean trained",
)
MIB = 2**20


def config_of(size: str) -> dict[str, Any]:
    """The UNet's config: `sd15`, `sdxl`, or the first one narrowed to try the script."""
    name = "sdxl" if size == "sdxl" else "sd15"
    config = json.loads((CONFIGS / f"{name}_unet.json").read_text())
    return {**config, **(TINY if size == "tiny" else {})}


def image_model(options: argparse.Namespace) -> UNet2DConditionModel:
    """An image model of that size; random weights, always the same, none of them initialised twice."""
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(config_of(options.size))
    model = nn.Module.to(model, options.dtype).to_empty(device=options.device).eval().requires_grad_(False)
    torch.manual_seed(0)
    fill(model)
    return model


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Random weights of the size that torch's layers start with, so that numbers stay in range; norms as they are."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                weight.fill_(float(name == "weight"))
            elif weight.ndim > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
            else:
                weight.normal_(std=SCALE)


def sharing(model: UNet2DConditionModel, options: argparse.Namespace) -> UNet2DConditionModel:
    """Another network with the very tensors of `model`."""
    with torch.device("meta"):
        other = UNet2DConditionModel.from_config(config_of(options.size))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval().requires_grad_(False)


def inputs_of(options: argparse.Namespace) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A noisy video (1, C, F, h, w), its text (1, 77, D), and what SDXL asks for besides, per video."""
    config = config_of(options.size)
    side = options.resolution // LATENT_FACTOR
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(1, config["in_channels"], options.frames, side, side, generator=generator)
    text = torch.randn(1, TEXT_TOKENS, config["cross_attention_dim"], generator=generator)
    added: dict[str, Tensor] = {}
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        added = {"text_embeds": torch.randn(1, pooled, generator=generator), "time_ids": torch.full((1, 6), 1024.0)}
    place = {"device": options.device, "dtype": options.dtype}
    return video.to(**place), text.to(**place), {name: value.to(**place) for name, value in added.items()}


def trained(model: InflatedModel) -> None:
    """Give every temporal weight a random value."""
    generator = torch.Generator().manual_seed(2)
    for weight in model.temporal_parameters():
        change = SCALE * torch.randn(weight.shape, generator=generator)
        weight.data.add_(change.to(weight.device, weight.dtype))


def peer_of(floor: UNet2DConditionModel, ours: InflatedModel, options: argparse.Namespace) -> nn.Module:
    """diffusers' motion UNet whose tensors are those of the image model and of our motion modules."""
    config = config_of(options.size)
    heads = {"motion_num_attention_heads": ours.scheme.field("motion_heads")}
    with torch.device("meta"):
        adapter = MotionAdapter(
            block_out_channels=tuple(floor.config["block_out_channels"]),
            use_motion_mid_block=ours.scheme.field("mid_motion_module"),
            motion_norm_num_groups=ours.scheme.field("norm_num_groups"),
            motion_layers_per_block=floor.config["layers_per_block"],
            motion_max_seq_length=ours.scheme.max_frames or 32,
            **heads,
        )
        peer = UNetMotionModel.from_unet2d(UNet2DConditionModel.from_config(config), adapter, load_weights=False)
    state = dict(floor.state_dict())
    for name, tensor in ours.temporal_state_dict().items():
        place, _, rest = name.partition(".")
        place = place.replace("-", ".")
        if rest.endswith("attn2.pe"):
            continue  # diffusers keeps one table for both
        state[f"{place}.{rest.replace('attn1.pe', 'pos_embed.pe')}"] = tensor
    peer.load_state_dict(state, assign=True)
    return peer.eval().requires_grad_(False)


class Contest:
    """The networks of the rows that were asked for, and their calls."""

    def __init__(self, rows: tuple[str, ...], options: argparse.Namespace) -> None:
        self.options = options
        floor = image_model(options)
        video, text, added = inputs_of(options)
        self.calls: dict[str, Callable[[], Tensor]] = {}
        self.weights: dict[str, int] = {}
        ours: dict[str, InflatedModel] = {}
        for row in rows if "UNetMotionModel" not in rows else ("animatediff-v2 trained", *rows):
            if row in self.calls:
                continue
            if row == "floor":
                network: nn.Module = floor
                self.calls[row] = self._call_of_pictures(self._ready(network), video, text, added)
            elif row == "UNetMotionModel":
                network = peer_of(floor, ours["animatediff-v2 trained"], options)
                self.calls[row] = self._call_of_peer(self._ready(network), video, text, added)
            else:
                scheme, _, state = row.partition(" ")
                own = SCHEMES[scheme].changed(norm_num_groups=floor.config["norm_num_groups"])
                network = ours[row] = inflate.inflate(sharing(floor, options), own, min(options.frames, 16))
                if state == "trained":
                    trained(ours[row])
                network.eval()
                self.calls[row] = self._call_of_video(self._ready(network), scheme, video, text, added)
            self.weights[row] = sum(weight.numel() * weight.element_size() for weight in network.parameters())
        self.calls = {row: self.calls[row] for row in rows}

    def _ready(self, network: nn.Module) -> nn.Module:
        if self.options.compile:
            network.compile()
        return network

    def _call_of_pictures(self, network: nn.Module, video: Tensor, text: Tensor, added: dict[str, Tensor]) -> Any:
        num_frames = video.shape[2]
        pictures = video[0].transpose(0, 1).contiguous()
        texts = text.repeat_interleave(num_frames, 0)
        more = {name: value.repeat_interleave(num_frames, 0) for name, value in added.items()}

        def call() -> Tensor:
            answer = network(pictures, 10, encoder_hidden_states=texts, **({"added_cond_kwargs": more} if more else {}))
            return answer.sample.transpose(0, 1)[None]

        return call

    def _call_of_video(self, network: nn.Module, scheme: str, video: Tensor, text: Tensor, added: Any) -> Any:
        fps = 8 if SCHEMES[scheme].fps_range else None
        more = {"added_cond_kwargs": added} if added else {}
        return lambda: network(video, 10, fps=fps, encoder_hidden_states=text, **more).sample

    def _call_of_peer(self, network: nn.Module, video: Tensor, text: Tensor, added: dict[str, Tensor]) -> Any:
        texts = text.repeat_interleave(video.shape[2], 0)
        more = {"added_cond_kwargs": added} if added else {}
        return lambda: network(video, 10, encoder_hidden_states=texts, **more).sample


def seconds(call: Callable[[], Tensor], device: str) -> tuple[float, float]:
    """Wall-clock seconds of one call, waiting for the device, and seconds of processor time of all threads."""
    if device == "cuda":
        torch.cuda.synchronize()
    start, used = time.perf_counter(), time.process_time()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - used


@contextmanager
def watched_memory() -> Iterator[dict[str, int]]:
    """The peak of resident memory inside the block, in bytes beyond that at its start, looked at every millisecond."""
    page = os.sysconf("SC_PAGESIZE")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    start, found, done = resident(), {"bytes": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            found["bytes"] = max(found["bytes"], resident() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def memory_of(row: str, options: argparse.Namespace) -> int:
    """Bytes of one forward pass beyond weights and inputs; on a CPU this runs in a process of its own."""
    call = Contest((row,), options).calls[row]
    with torch.inference_mode():
        if options.device == "cuda":
            call()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        with watched_memory() as found:
            call()
        return found["bytes"]


def memory_in_own_process(row: str) -> int:
    """`memory_of`, in a process with the same options."""
    command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--memory-of", row]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"measuring the memory of {row!r} failed:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def check(contest: Contest) -> tuple[dict[str, float | bool], dict[str, int]]:
    """At the start the floor's bits, diffusers' answer for the same weights; each row's FLOPs, counted meanwhile."""
    found: dict[str, float | bool] = {}
    answers, flops = {}, {}
    for row, call in contest.calls.items():
        # A compiled network is counted as it is without compiling.
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            answers[row] = call()
        flops[row] = counter.get_total_flops()
    for row, answer in answers.items():
        if row.endswith("at start"):
            found[row] = torch.equal(answer, answers["floor"])
        if row == "UNetMotionModel":
            ours = answers["animatediff-v2 trained"]
            found["largest difference to UNetMotionModel"] = float((answer - ours).abs().max())
            found["largest answer"] = float(answer.abs().max())
    return found, flops


def measure(options: argparse.Namespace, report: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """All rounds, FLOPs and memory, by row; `path` holds what there is after each round."""
    rows = tuple(options.rows)
    contest = Contest(rows, options)

    def write(**more: Any) -> dict[str, dict[str, Any]]:
        found = {row: figures(row, times, used, flops, memory, contest.weights) for row in rows}
        report.update(rounds=len(times["floor"]), checks=checks, **more, rows=found)
        path.write_text(json.dumps(report, indent=1) + "\n")
        return found

    memory: dict[str, int] = {}
    times: dict[str, list[float]] = {row: [] for row in rows}
    used: dict[str, list[float]] = {row: [] for row in rows}
    with torch.inference_mode():
        checks, flops = check(contest)
        print("checked:", json.dumps(checks), flush=True)
        for number in range(options.warm_up + options.rounds):
            taken = {row: seconds(call, options.device) for row, call in contest.calls.items()}
            print(f"round {number}: " + ", ".join(f"{row} {t:.2f}" for row, (t, _) in taken.items()), flush=True)
            if number >= options.warm_up:
                for row, (wall, processor) in taken.items():
                    times[row].append(wall)
                    used[row].append(processor)
                write()
    contest.calls.clear()
    memory |= {} if options.no_memory else {row: memory_in_own_process(row) for row in rows}
    return write()


def spread(times: dict[str, list[float]], row: str, other: str) -> list[float]:
    """Smallest, median and largest ratio of `row` to `other` in one round."""
    ratios = [own / theirs for own, theirs in zip(times[row], times[other], strict=True)]
    return [round(f(ratios), 4) for f in (min, statistics.median, max)]


def figures(
    row: str,
    times: dict[str, list[float]],
    used: dict[str, list[float]],
    flops: dict[str, int],
    memory: dict[str, int],
    weights: dict[str, int],
) -> dict[str, Any]:
    """One row of the report."""
    found: dict[str, Any] = {
        "seconds": [round(one, 4) for one in times[row]],
        "cpu_seconds": [round(one, 4) for one in used[row]],
        "ratio_min_median_max": spread(times, row, "floor"),
        "cpu_ratio_min_median_max": spread(used, row, "floor"),
        "flops": flops[row],
        "flops_ratio": round(flops[row] / flops["floor"], 4),
        "tflops_per_second": round(flops[row] / statistics.median(times[row]) / 1e12, 4),
        "weights_gb_per_second": round(weights[row] / statistics.median(times[row]) / 1e9, 2),
    }
    if "UNetMotionModel" in times:
        found["ratio_to_unet_motion_model"] = spread(times, row, "UNetMotionModel")
        found["cpu_ratio_to_unet_motion_model"] = spread(used, row, "UNetMotionModel")
    if memory:
        found["forward_mib"] = round(memory[row] / MIB, 1)
        found["memory_ratio"] = round(memory[row] / memory["floor"], 4)
    return found


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The report as a Markdown table."""
    lines = [
        "| | time over the floor: median (smallest to largest) | processor time | FLOPs over it | time over FLOPs "
        "| memory over it | TFLOP/s | GB/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, found in rows.items():
        low, median, high = found["ratio_min_median_max"]
        memory = f"{found['memory_ratio']:.2f}" if "memory_ratio" in found else ""
        lines.append(
            f"| {row} | {median:.3f} ({low:.3f} to {high:.3f}) | {found['cpu_ratio_min_median_max'][1]:.3f} "
            f"| {found['flops_ratio']:.3f} "
            f"| {median / found['flops_ratio']:.3f} | {memory} | {found['tflops_per_second']:.3f} "
            f"| {found['weights_gb_per_second']:.1f} |"
        )
    return "\n".join(lines)


def options_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warm-up", type=int, default=1, help="rounds that do not count, after the one that checks")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--size", choices=("sd15", "sdxl", "tiny"), default="sd15")
    parser.add_argument("--resolution", type=int, default=256, help="pixels of a side; latents have an eighth")
    parser.add_argument("--compile", action="store_true", help="torch.compile every network")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument("--json", type=Path, default=None, help="where to write; by default beside this script")
    parser.add_argument("--memory-of", choices=ROWS, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.dtype = getattr(torch, options.dtype)
    if options.size == "sdxl":  # diffusers' motion UNet leaves SDXL's added embedding random
        options.rows = [row for row in options.rows if row != "UNetMotionModel"]
    return options


def main() -> None:
    """Measure, print the table, and write a dated JSON."""
    options = options_of()
    if options.memory_of:
        print(memory_of(options.memory_of, options))
        return
    on_gpu = options.device == "cuda"
    machine = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, {torch.get_num_threads()} threads"
    report: dict[str, Any] = {
        "date": str(date.today()),
        "command": " ".join(["python benchmarks/bench_stable_diffusion.py", *sys.argv[1:]]),
        "machine": machine,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
        **{name: getattr(options, name) for name in ("size", "frames", "resolution", "warm_up", "compile")},
        "dtype": str(options.dtype).removeprefix("torch."),
    }
    name = f"stable_diffusion-{options.size}-{options.device}-{report['dtype']}-{options.frames}x{options.resolution}"
    path = options.json or Path(__file__).with_name(f"{name}-{report['date']}.json")
    print(table(measure(options, report, path)))


if __name__ == "__main__":
    main()
