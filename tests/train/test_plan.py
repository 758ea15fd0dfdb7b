"""Planning: what is counted without memory equals what a hand counts, and proposals keep their word."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from inflate.errors import InputError
from inflate.train.measuring import Measured, run
from inflate.train.plan import Machine, Plan, Run, fit, machine_of, plan, read_size, run_of
from inflate.train.planned import Lasting, Planned, lasting_bytes, meta_network, reduced, simulated
from inflate.train.simulation import Simulated, simulate
from tests.inflater.tiny_models import build

CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "num_embeds_ada_norm": 20,
}
PLANNED = Planned("DiTTransformer2DModel", CONFIG, 4, 8, 8, scheme="lean")
MACHINE = Machine(1.0, 0)


class Toy(nn.Module):
    """Two layers with a square between them."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 32, bias=False), nn.Linear(32, 8, bias=False)
        self.first.requires_grad_(not frozen)

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(rows).square()).square().mean()


def toy(frozen: bool) -> Simulated:
    with torch.device("meta"):
        network, rows = Toy(frozen), torch.empty(100, 16)
    return simulate(network, network.loss, rows)


def test_activations_are_those_a_hand_counts() -> None:
    # Kept: the input's square root (100 x 32), the square (100 x 32), the output (100 x 8), the mean's scalar; the
    # input is given and not counted.
    assert toy(frozen=False).kept == 4 * (100 * 32 + 100 * 32 + 100 * 8 + 1)
    # No gradient reaches the first layer: only what the last one reads, its output, and the scalar.
    assert toy(frozen=True).kept == 4 * (100 * 32 + 100 * 8 + 1)


def test_gradients_and_arithmetic_are_those_a_hand_counts() -> None:
    both, last = toy(frozen=False), toy(frozen=True)
    assert both.all_gradients == 4 * (16 * 32 + 32 * 8) and last.all_gradients == 4 * 32 * 8
    first_pass, second_pass = 2 * 100 * 16 * 32, 2 * 100 * 32 * 8
    assert both.flops == 2 * first_pass + 3 * second_pass  # the input itself needs no gradient
    assert last.flops == first_pass + 2 * second_pass


def test_autocast_keeps_half() -> None:
    with torch.device("meta"):
        network, rows = Toy(False), torch.empty(100, 16)
    loss = lambda given: network.last(network.first(given)).float().sum()  # noqa: E731
    assert simulate(network, loss, rows, torch.bfloat16).kept < toy(False).kept


def test_norms_are_float32_on_cuda_only() -> None:
    def kept(like_cuda: bool) -> int:
        with torch.device("meta"):
            network, rows = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 16)), torch.empty(64, 16)
        return simulate(network, lambda given: network(given).float().sum(), rows, torch.bfloat16, like_cuda).kept

    assert kept(True) > kept(False)


def test_the_peak_is_that_of_torch_in_float64() -> None:
    """The highest use of a chain of squares, by hand: two live at once beside what is kept."""
    with torch.device("meta"):
        network, rows = nn.Linear(8, 8, bias=False), torch.empty(1000, 8)

    def loss(given: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for _ in range(5):
                given = given.exp()  # the last one dies when the next is there
        return functional.linear(given, network.weight).sum()

    made = simulate(network, loss, rows)
    one = 1000 * 8 * 4
    assert made.kept == one + 4  # what the layer reads, and the sum
    assert 2 * one <= made.peak <= 3 * one


@pytest.mark.parametrize(
    "more",
    [{"num_frames": 8}, {"height": 16, "width": 16}, {"batch_size": 2}, {"trainable": "all"}],
    ids=lambda value: str(value),
)
def test_more_needs_more(more: dict[str, Any]) -> None:
    few, many = (plan(Run(one, 1, 2, 1, "cpu"), MACHINE) for one in (PLANNED, replace(PLANNED, **more)))
    assert many.total > few.total and many.flops > few.flops


def test_checkpointing_needs_less_memory_and_more_arithmetic() -> None:
    large = replace(PLANNED, config=CONFIG | {"num_layers": 8})
    (_, plain), (_, saved) = (simulated(replace(large, gradient_checkpointing=value)) for value in (False, True))
    assert saved.kept < plain.kept and saved.peak < plain.peak
    assert plain.flops < saved.flops < 1.6 * plain.flops


class Blocks(nn.Module):
    """Residual blocks that are computed again in the backward pass."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        blocks = [
            nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(count)
        ]
        self.blocks = nn.ModuleList(blocks).requires_grad_(False)

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        rows = self.first(rows)
        for block in self.blocks:
            rows = rows + checkpoint(block, rows, use_reentrant=False)
        return rows.square().mean()


def test_a_block_computed_again_is_gone_when_the_next_one_is() -> None:
    """More blocks keep more inputs, and hold no more at a time while they are computed again."""

    def made(count: int) -> Simulated:
        with torch.device("meta"):
            network, rows = Blocks(count), torch.empty(1000, 64)
        return simulate(network, network.loss, rows)

    few, many = made(2), made(8)
    assert many.kept - few.kept == 6 * 1000 * 64 * 4
    assert many.transient == few.transient


def test_what_lasts_is_counted_from_the_parameters() -> None:
    network = meta_network(PLANNED)
    numbers = sum(parameter.numel() for parameter in network.temporal.parameters())
    found = lasting_bytes(PLANNED, network)
    assert (
        found.temporal == 4 * numbers and found.ema == found.trained == 4 * numbers and found.optimizer == 8 * numbers
    )
    small = lasting_bytes(replace(PLANNED, optimizer="adamw-8bit"), network)
    assert small.optimizer < found.optimizer or all(p.numel() < 4096 for p in network.temporal.parameters())
    half = replace(PLANNED, precision="bf16")
    assert lasting_bytes(half, meta_network(half)).weights == pytest.approx(found.weights / 2, rel=0.01)


def test_moments_in_eight_bits_are_a_quarter() -> None:
    network = meta_network(replace(PLANNED, trainable="all", config=CONFIG | {"attention_head_dim": 64}))
    whole, small = (lasting_bytes(replace(PLANNED, optimizer=name), network) for name in ("adamw", "adamw-8bit"))
    assert whole.optimizer / 4 < small.optimizer < whole.optimizer / 3


def test_accumulation_keeps_gradients_through_the_forward_pass() -> None:
    _, once = simulated(PLANNED)
    _, twice = simulated(replace(PLANNED, accumulation=2))
    assert twice.gradients == twice.all_gradients == once.all_gradients > once.gradients


def test_what_fits_is_what_was_promised() -> None:
    run = Run(replace(PLANNED, num_frames=16, height=16, width=16), 1, 2, 1, "cpu")
    whole = plan(run, MACHINE).total
    assert fit(run, whole, MACHINE) is not None and fit(run, whole, MACHINE).flags == ()  # pyright: ignore[reportOptionalMemberAccess]
    found = fit(run, whole // 2, MACHINE)
    assert found is not None and found.plan.total <= whole // 2
    assert found.flags[0] == "train.gradient_checkpointing=true"
    assert len({flag.partition("=")[0] for flag in found.flags}) == len(found.flags)
    assert fit(run, 10_000, MACHINE) is None


def test_proposed_flags_give_the_proposed_plan(tmp_path: Path) -> None:
    _write_config(tmp_path)
    start = ["data.num_frames=16", "data.size=128"]
    run = run_of(str(tmp_path), overrides=start, device="cpu")
    found = fit(run, plan(run, MACHINE).total // 2, MACHINE)
    assert found is not None and found.flags
    again = run_of(str(tmp_path), overrides=[*start, *found.flags], device="cpu")
    made = plan(again, MACHINE)
    assert (made.flops, made.optimizer, made.weights) == (found.plan.flops, found.plan.optimizer, found.plan.weights)
    assert made.total == pytest.approx(found.plan.total, rel=0.1)  # Python frees cycles when it likes


def test_the_small_step_is_a_part_of_the_run() -> None:
    whole = replace(PLANNED, num_frames=16, height=64, width=64, batch_size=2)
    small = reduced(whole, 10**12, 10**11, 2)
    assert small.cells <= 0.5 * whole.cells and small.frames_built == 16 and small.batch_size == 1
    assert small.height % 2 == 0 and small.num_frames >= 4


def test_a_measured_machine_gives_time() -> None:
    lasting, made = Lasting(100, 10, 20, 10, 10), Simulated(900, 50, 50, 900, 50, 10**9, 0)
    machine = machine_of(Measured(0.5, 0.25, 1.0, 1000, 1000 + 140 + 1500), lasting, made, PLANNED)
    assert machine.allocator == pytest.approx(1.5) and machine.process == 1000
    made_plan = plan(Run(PLANNED, 1, 2, 7, "cpu"), machine)
    assert made_plan.step_seconds == pytest.approx(made_plan.flops / 2e9 + 0.25)
    assert made_plan.total_seconds == pytest.approx(7 * (made_plan.flops / 2e9 + 0.25))
    assert isinstance(made_plan, Plan) and made_plan.total == sum(
        getattr(made_plan, name)
        for name in "weights temporal gradients optimizer ema activations transient allocator process".split()
    )


def test_a_small_step_runs_for_real() -> None:
    found = run(PLANNED, torch.device("cpu"), updates=2)
    assert found.seconds > 0 and found.update_seconds > 0 and found.peak >= found.base


@pytest.mark.parametrize(
    ("text", "size"), [("24GB", 24 * 10**9), ("24 GiB", 24 * 2**30), ("0.5G", 5 * 10**8), ("800m", 8 * 10**8)]
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-3GB", "0GB", "24 apples"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no size of memory; write 24GB"):
        read_size(text)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.size=7"], "takes multiples of 16 pixels"),
        (["data.size=big"], "size must be of type int, not 'big'"),
        (["data.num_frames=0"], "data.num_frames is 0"),
        (["train.batch_size=true"], "batch_size must be of type int, not True"),
        (["nonsense"], "not of the form"),
        (["data.size=[]"], "data.size is"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, overrides: list[str], words: str) -> None:
    _write_config(tmp_path)
    with pytest.raises(InputError, match=words):
        run_of(str(tmp_path), overrides=overrides, device="cpu")


def test_bad_devices_and_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        run_of(str(tmp_path / "nowhere"), device="cpu")
    _write_config(tmp_path)
    with pytest.raises(InputError, match="planned for 'cpu' and 'cuda'"):
        run_of(str(tmp_path), device="mps")


def _write_config(folder: Path) -> None:
    with torch.device("meta"):
        config = dict(DiTTransformer2DModel(**CONFIG).config)
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "DiTTransformer2DModel"}))


def test_a_network_that_looks_at_numbers_cannot_be_planned() -> None:
    image_model = build("lumina2")
    planned = Planned("Lumina2Transformer2DModel", dict(image_model.config), 4, 8, 8, scheme="latte")
    with pytest.raises(InputError, match="cannot be planned: it looks at numbers, and planning has none"):
        meta_network(planned)
