"""Two and four processes train one model: what one would, once, and all to the end of any."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inflate.train.state import processes_before, updates_done
from tests.bases.families import build
from tests.train.test_finetune_models import settings, write_clip
from tests.train.together import ROOT, Ended, Starter

pytestmark = pytest.mark.processes
GLOBAL_BATCH = 8
WITHIN_SECONDS = 30  # of a process's end, all have ended


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    with Starter(tmp_path_factory.mktemp("starter")) as made:
        yield made


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run) if "loss" in line]


def noted(starter: Starter, rank: int) -> Any:
    return json.loads((starter.folder / f"run{starter.number}" / f"{rank}.json").read_text())


def go(starter: Starter, processes: int, output: Path, what: str = "train", **told: Any) -> list[Ended]:
    train = {"steps": 20, "batch_size": GLOBAL_BATCH // processes, "max_grad_norm": 0.5} | told.pop("train", {})
    return starter.run(processes, what, output=str(output), train=train, **told)


@pytest.mark.parametrize("processes", [2, 4])
def test_losses_are_those_of_one_process_with_the_same_global_batch(
    starter: Starter, tmp_path: Path, processes: int
) -> None:
    for count in (1, processes):
        assert [end.code for end in go(starter, count, tmp_path / str(count))] == [0] * count
    one, many = losses(tmp_path / "1"), losses(tmp_path / str(processes))
    assert len(one) == 20 and max(one) > 1.5 * min(one)
    assert many == pytest.approx(one, rel=1e-5)
    first, last = lines(tmp_path / "1")[-1], lines(tmp_path / str(processes))[-1]
    assert last["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=1e-4)
    weights = [load_file(tmp_path / name / "export/w.safetensors") for name in ("1", str(processes))]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=1e-4)


def test_the_first_process_alone_writes_and_speaks(starter: Starter, tmp_path: Path) -> None:
    every = {"checkpoint_every": 5, "validate_every": 5, "sample_every": 5}
    ends = go(starter, 2, tmp_path / "run", step="talking-toy", train=every)
    assert [end.code for end in ends] == [0, 0]
    assert "A sentence about the data." in ends[0].out and ends[1].out == "" == ends[1].err
    assert noted(starter, 0)["written"] and not noted(starter, 1)["written"]
    assert [line["update"] for line in lines(tmp_path / "run")] == list(range(21)), "each update stands there once"


def test_the_first_process_prepares_before_the_others(starter: Starter, tmp_path: Path) -> None:
    assert [end.code for end in go(starter, 3, tmp_path / "run", "prepare_in_turn")] == [0, 0, 0]
    (_, done), *others = (noted(starter, rank) for rank in range(3))
    assert all(begun >= done for begun, _ in others)


def test_one_mistake_is_told_once(starter: Starter, tmp_path: Path) -> None:
    ends = go(starter, 2, tmp_path / "run", train={"learning_rate_scale": {"nothing": 2.0}})
    assert [end.code for end in ends] == [2, 2]
    assert ends[0].err.count("\n") == 1 and "learning_rate_scale names 'nothing'" in ends[0].err
    assert ends[1].err == ends[1].out == ""


def test_what_one_alone_meets_is_told_too(starter: Starter, tmp_path: Path) -> None:
    ends = go(starter, 3, tmp_path / "run", "fail_alone", train={"batch_size": 2}, quiet=True)
    assert [end.code for end in ends] == [2, 2, 2] and max(end.seconds for end in ends) < WITHIN_SECONDS
    told = "".join(end.err for end in ends)
    assert told.count("\n") == 1 and "Process 1 of 3" in told and "the disk of this machine alone is full" in told


def test_numbers_that_are_none_end_all_of_them(starter: Starter, tmp_path: Path) -> None:
    ends = go(starter, 2, tmp_path / "run", options={"bad": 3})
    assert [end.code for end in ends] == [2, 2] and "became nan at update 4" in ends[0].err and ends[1].err == ""


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 4), (4, 2)])
def test_another_number_of_processes_goes_on(starter: Starter, tmp_path: Path, before: int, after: int) -> None:
    """With the same global batch the same losses as one that was never interrupted."""
    run = tmp_path / "run"
    go(starter, 1, tmp_path / "whole")
    cut = {"steps": 10, "checkpoint_every": 5}
    assert {end.code for end in go(starter, before, run, train=cut)} == {0}
    assert (updates_done(run / "state"), processes_before(run / "state")) == (10, before)
    ends = go(starter, after, run)
    assert {end.code for end in ends} == {0}
    counted = f"{after} process{'es' if after > 1 else ''} instead of {before} process{'es' if before > 1 else ''}"
    assert f"toy goes on with {counted}; an update has 8 items as before." in ends[0].out
    assert losses(run) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


def test_another_global_batch_is_told(starter: Starter, tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(starter, 1, run, train={"steps": 10, "batch_size": 4})
    ends = go(starter, 2, run, train={"batch_size": 4})
    assert {end.code for end in ends} == {0} and len(losses(run)) == 20
    assert "and an update has 8 items instead of 4; to keep it, change train.batch_size" in ends[0].out
    ends = go(starter, 2, run, train={"steps": 30, "batch_size": 3})
    assert [end.code for end in ends] == [2, 2] and "train.batch_size was 4 and is 3" in ends[0].err


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_of_them(starter: Starter, tmp_path: Path, rank: int) -> None:
    told = {"at": str(tmp_path / "mark"), "kill": rank, "update": 7, "train": {"steps": 10**6, "checkpoint_every": 5}}
    ends = go(starter, 2, tmp_path / "run", "train_until_marked", quiet=True, **told)
    other = ends[1 - rank]
    assert ends[rank].code == -signal.SIGKILL and other.code == 1 and other.seconds < WITHIN_SECONDS
    assert other.err.count("\n") == 1, other.err
    assert "is gone" in other.err and "the same command goes on from its last checkpoint" in other.err
    assert updates_done(tmp_path / "run/state") >= 5
    ends = go(starter, 2, tmp_path / "run", train={"steps": updates_done(tmp_path / "run/state") + 3})
    assert [end.code for end in ends] == [0, 0], "the same command goes on"


def test_a_process_that_waits_for_something_else_ends_too(starter: Starter, tmp_path: Path) -> None:
    """Of three, one is killed, and one is deep in work of its own and in no collective operation."""
    told = {
        "at": str(tmp_path / "mark"),
        "kill": 1,
        "stuck": [2],
        "update": 3,
        "train": {"steps": 10**6, "batch_size": 2},
    }
    ends = go(starter, 3, tmp_path / "run", "train_until_marked", quiet=True, **told)
    assert [end.code for end in ends] == [1, -signal.SIGKILL, 1]
    assert max(end.seconds for end in ends) < WITHIN_SECONDS
    assert "is gone" in ends[0].err and ends[2].err == "", "the lowest that is left says it"


def test_the_first_process_killed_in_its_preparation_ends_those_that_wait(starter: Starter, tmp_path: Path) -> None:
    ends = go(starter, 2, tmp_path / "run", "wait_for_the_first", at=str(tmp_path / "mark"), kill=0, quiet=True)
    assert (ends[0].code, ends[1].code) == (-signal.SIGKILL, 1) and ends[1].seconds < WITHIN_SECONDS
    assert "gone" in ends[1].err


def test_a_process_whose_heart_has_stopped_counts_as_gone(starter: Starter, tmp_path: Path) -> None:
    """It is there, and stands still, as one on a machine that hangs does as far as others can see."""
    ends = starter.run(2, "beat_only", patience=3.0, until=0)
    assert ends[0].code == 1 and ends[0].seconds < WITHIN_SECONDS and "Process 1 of 2" in ends[0].err
    assert ends[1].code == -signal.SIGKILL, "by the starter"


def test_a_signal_to_one_stops_all_after_the_same_update(starter: Starter, tmp_path: Path) -> None:
    told = {"at": str(tmp_path / "mark"), "kill": 1, "update": 4, "signal": signal.SIGTERM.value}
    ends = go(starter, 2, tmp_path / "run", "train_until_marked", train={"steps": 10**6}, quiet=True, **told)
    assert [end.code for end in ends] == [143, 143]
    assert ends[0].err.count("\n") == 1 and "and saved it; the same command goes on" in ends[0].err
    assert ends[1].err == "" and updates_done(tmp_path / "run/state") >= 4


# The command itself


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    build("pixart", folder / "model")
    (folder / "clips").mkdir()
    for number in range(7):
        write_clip(folder / "clips" / f"clip{number}.mp4", number)
        (folder / "clips" / f"clip{number}.txt").write_text("red" if number % 2 else "see")
    return folder


def arguments(places: Path, run: Path, batch: int, steps: int = 20, *more: str) -> list[str]:
    changes = (f"train.batch_size={batch}", "train.sample_every=0", "train.learning_rate=1e-3", "data.validation=0.2")
    named = ["--model", str(places / "model"), "--data", str(places / "clips"), "-o", str(run), "--device", "cpu"]
    return [*named, "--quiet", *settings(*changes, *more, steps=steps)]


def test_finetuning_in_two_and_four_processes_is_finetuning_in_one(
    starter: Starter, places: Path, tmp_path: Path
) -> None:
    """The same losses; and every clip of an epoch is drawn once, whoever draws it and whoever reads it ahead."""
    cuts = {1: (4, ()), 2: (2, ("options.cache=false", "data.workers=1")), 4: (1, ())}
    orders = {}
    for processes, (batch, more) in cuts.items():
        told = arguments(places, tmp_path / str(processes), batch, 20, *more)
        assert {end.code for end in starter.run(processes, "finetune", arguments=told)} == {0}
        rows = sorted(row for rank in range(processes) for row in noted(starter, rank))
        orders[processes] = [number for _, _, *numbers in rows for number in numbers]
    assert orders[1] == orders[2] == orders[4] and len(orders[1]) == 80
    size = len(set(orders[1]))
    for epoch in range(len(orders[1]) // size):
        assert sorted(orders[1][epoch * size : (epoch + 1) * size]) == sorted(set(orders[1])), "each once"
    for processes in (2, 4):
        assert losses(tmp_path / str(processes)) == pytest.approx(losses(tmp_path / "1"), rel=1e-5)


@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--nproc_per_node", "2"],
        ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"],
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_launchers_start_it(places: Path, tmp_path: Path, launcher: list[str]) -> None:
    command = [sys.executable, "-W", "ignore", "-m", *launcher, "-m", "inflate", "finetune"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    told = arguments(places, tmp_path / "run", 1, 3)
    told.remove("--quiet")
    done = subprocess.run([*command, *told], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done; the trained network is in") == 1
    assert processes_before(tmp_path / "run/state") == 2 and len(losses(tmp_path / "run")) == 3
