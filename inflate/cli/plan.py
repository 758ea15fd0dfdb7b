"""``inflate plan``: memory and time of a fine-tuning run before it starts."""

import json as json_module
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from inflate.train.plan import Fitted, Machine, Plan, Run

_ROWS = (
    ("weights", "image weights"),
    ("temporal", "temporal layers"),
    ("gradients", "gradients"),
    ("optimizer", "optimizer"),
    ("ema", "averaged weights"),
    ("activations", "activations kept"),
    ("transient", "computed on the way"),
    ("allocator", "held by the allocator"),
    ("process", "process, libraries"),
)


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("plan")(plan)


def plan(
    model: Annotated[str, typer.Argument(help="What `finetune --model` takes; its weights need not be there.")],
    data: Annotated[str, typer.Option(help="As for finetune; clips are not read.")] = "",
    scheme: Annotated[str, typer.Option("--scheme", help="Of temporal layers.")] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, for instance data.num_frames=8; repeatable.")
    ] = None,
    fit: Annotated[str, typer.Option("--fit", help="Propose settings that stay within so much memory: 24GB.")] = "",
    device: Annotated[str | None, typer.Option(help="'cpu' or 'cuda', also one that is not here.")] = None,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Run no small step: no time is told.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Tell how much memory and time `finetune` with the same options would take, without weights.

    Memory is counted tensor by tensor without running the network; a small step is run for real to measure speed and
    what the allocator adds.
    """
    from inflate.train import plan as planning

    limit = planning.read_size(fit) if fit else None
    run = planning.run_of(model, data, scheme, overrides or [], device)
    machine = planning.unmeasured(run.device) if no_measure else planning.measured_machine(run)
    made = planning.plan(run, machine)
    fitted = None if limit is None else planning.fit(run, limit, machine, made)
    if json:
        print(json_module.dumps(_as_json(run, made, machine, fit, fitted), indent=2))
        return
    _print(run, made, machine)
    if limit is not None:
        _print_fit(fit, limit, made, fitted)


def _as_json(run: "Run", made: "Plan", machine: "Machine", fit: str, fitted: "Fitted | None") -> dict[str, Any]:
    answer = {"device": run.device, **made.as_dict(), "note": machine.note}
    if fit:
        answer["fit"] = None if fitted is None else {"set": list(fitted.flags), **fitted.plan.as_dict()}
    return answer


def _print(run: "Run", made: "Plan", machine: "Machine") -> None:
    from rich.console import Console
    from rich.table import Column, Table

    planned = run.planned
    size = f"{planned.height * run.factor} x {planned.width * run.factor}"
    title = f"{planned.image_model_class}, {planned.scheme}: {planned.batch_size} x {planned.num_frames} x {size}"
    table = Table(Column("", no_wrap=True), Column("GB", justify="right", no_wrap=True), title=f"{title}, {run.device}")
    for name, words in _ROWS:
        table.add_row(words, f"{getattr(made, name) / 1e9:.3f}")
    table.add_section()
    table.add_row("in all", f"{made.total / 1e9:.3f}")
    Console(file=sys.stdout).print(table)
    print(f"{made.flops / 1e12:,.2f} TFLOP an update, {made.updates:,} updates.")
    if made.step_seconds is not None and made.total_seconds is not None:
        print(f"{made.step_seconds:,.2f} s an update, {_duration(made.total_seconds)} in all, without validation.")
    if machine.note:
        print(f"({machine.note})")
    print("Encoders are not counted: clips are encoded before training, and encoders leave memory then.")


def _print_fit(fit: str, limit: int, made: "Plan", fitted: "Fitted | None") -> None:
    if fitted is None:
        print(f"Nothing fits {fit}: not even short, small clips with checkpointing; choose a smaller model.")
    elif not fitted.flags:
        print(f"It fits {fit} as it is: {made.total / 1e9:.2f} GB.")
    else:
        flags = " ".join(f"--set {flag}" for flag in fitted.flags)
        print(f"To fit {fit} ({fitted.plan.total / 1e9:.2f} GB):\n  {flags}")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"
