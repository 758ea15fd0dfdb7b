"""What is kept of an architecture gives the files that torch would write, and the same reports and refusals."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from inflate.adapters import ADAPTERS
from inflate.checkpoint import Source
from inflate.checkpoint.plans import Plan, keep_plan, plan_path, read_plan, wanted
from inflate.checkpoint.recording import record_starts, seeded
from inflate.checkpoint.starts import SEED, Constant, Stream, Uniform, write_starts
from inflate.checkpoint.temporal import entries_of, write_new_layers
from inflate.cli.app import main
from inflate.errors import InputError
from inflate.image_models import IMAGE_MODELS
from inflate.inflater import find_sites, report, temporal_layer_makers
from inflate.schemes import SCHEMES
from tests.inflater.tiny_models import build
from tests.killed import ROOT

METADATA = {"format": "inflate-temporal-1", "scheme": "s"}


def test_the_names_known_without_diffusers_are_the_tables() -> None:
    assert tuple(ADAPTERS) == IMAGE_MODELS


@pytest.mark.parametrize("name", ["sd15", "sdxl", "pixart-alpha", "sd3", "flux-dev", "unconditional"])
def test_every_scheme_is_written_as_torch_would(name: str, tmp_path: Path) -> None:
    """For each image model, the bytes of new layers from the plan, which was read back from its file."""
    image_model, written = build(name), 0
    figures = report(image_model, "make-a-video" if name == "unconditional" else "lean", 5)
    source = Source(tmp_path, tmp_path, dict(image_model.config), type(image_model).__name__)
    for scheme in SCHEMES.values():
        try:
            sites = find_sites(image_model, scheme)
        except InputError:
            continue
        makers = temporal_layer_makers(sites, 5, _on_meta(image_model))
        by_torch, by_plan = tmp_path / "torch.safetensors", tmp_path / "plan.safetensors"
        with seeded():
            write_new_layers(by_torch, makers, METADATA | {"weights_fingerprint": "w"})
        with torch.device("meta"):
            tensors = {f"{key}.{one}": value for key, make in makers for one, value in make().state_dict().items()}
        starts = record_starts(makers)
        assert starts is not None, scheme.name
        plan = Plan({"a": (1, 2)}, figures, METADATA, entries_of(tensors), starts)
        path = plan_path(source, scheme.name, 5)
        keep_plan(path, plan)
        again = read_plan(path)
        assert again is not None and again == plan
        again.write_layers(by_plan, "w")
        assert by_plan.read_bytes() == by_torch.read_bytes(), scheme.name
        written += 1
    assert written > 2


def _on_meta(image_model: Any) -> Any:
    with torch.device("meta"):
        return type(image_model).from_config(image_model.config)


def test_the_stream_is_torchs() -> None:
    numbers = [Uniform(0, 10_007, -0.3, 0.7), Uniform(10_007, 3, 0.0, 1.0), Uniform(200_000, 70_000, -1e-3, 1e-3)]
    stream, made = Stream(), []

    class File:
        def write(self, part: Any) -> None:
            made.append(np.array(part))

    for one in numbers:
        stream.write(File(), one)  # pyright: ignore[reportArgumentType]  # it is written to, no more
    torch.manual_seed(SEED)
    wanted_numbers = [torch.empty(10_007).uniform_(-0.3, 0.7), torch.empty(3).uniform_()]
    torch.empty(200_000 - 10_010).uniform_()
    wanted_numbers.append(torch.empty(70_000).uniform_(-1e-3, 1e-3))
    assert np.concatenate(made).tobytes() == torch.cat(wanted_numbers).numpy().tobytes()


class Odd(nn.Module):
    """Begins in a way that cannot be drawn again."""

    def __init__(self, draw: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(64))
        getattr(nn.init, draw)(self.weight)


class Mixed(nn.Module):
    """Numbers of several kinds, drawn in another order than they are stored, and changed after they were drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.empty(5000)), nn.Parameter(torch.empty(3, 7))
        self.scaled = nn.Parameter(torch.empty(11))
        nn.init.uniform_(self.second, -2, 2)
        nn.init.uniform_(self.first)
        nn.init.uniform_(self.scaled)
        self.scaled.data.mul_(3)
        self.register_buffer("table", torch.arange(-3, 4))
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("narrow", torch.tensor([0.0, 1.5, 0.0], dtype=torch.float16))
        self.register_buffer("none", torch.zeros(9000))


def test_what_is_drawn_otherwise_is_left_to_torch(tmp_path: Path) -> None:
    assert record_starts([("a", lambda: Odd("uniform_"))])
    assert record_starts([("a", lambda: Odd("normal_"))]) is None
    assert record_starts([("a", lambda: Odd("trunc_normal_"))]) is None
    makers: Sequence[Any] = [("a", Mixed), ("b", Mixed)]
    before = torch.get_rng_state()
    starts = record_starts(makers)
    assert torch.equal(torch.get_rng_state(), before)
    assert starts is not None and isinstance(starts["a.first"], Uniform) and isinstance(starts["a.scaled"], Constant)
    assert "a.none" not in starts
    with seeded():
        write_new_layers(tmp_path / "torch", makers, METADATA)
    tensors = {f"{key}.{name}": value for key in "ab" for name, value in Mixed().state_dict().items()}
    plan = Plan({}, report(build("sd15"), "lean", 2), METADATA, entries_of(tensors), starts)
    path = tmp_path / "a.json.gz"
    keep_plan(path, plan)
    again = read_plan(path)
    assert again is not None and again.starts is not None
    content = (tmp_path / "torch").read_bytes()
    with open(tmp_path / "plan", "wb") as file:
        file.write(content[: 8 + int.from_bytes(content[:8], "little")])
        write_starts(file, again.entries, again.starts)
    assert (tmp_path / "plan").read_bytes() == content


def test_a_plan_that_cannot_be_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan({"a": (1,)}, report(build("sd15"), "lean", 2))
    path = tmp_path / "plans" / "a.json.gz"
    keep_plan(path, plan)
    assert read_plan(path) == plan and read_plan(None) is None and read_plan(tmp_path / "none") is None
    whole = path.read_bytes()
    values = json.loads(gzip.decompress(whole))
    for damaged in (whole[:50], b"", b"x", gzip.compress(b"[]"), gzip.compress(b"{"), gzip.compress(b"[" * 10**6)):
        path.write_bytes(damaged)
        assert read_plan(path) is None
    for key in values:
        path.write_bytes(gzip.compress(json.dumps(values | {key: 3}).encode()))
        assert read_plan(path) is None
    keep_plan(Path("/proc/nowhere/a.json.gz"), plan)  # which is no error
    keep_plan(None, plan)
    assert not wanted(), "these tests have torch"


_RUN = """
import sys
from inflate.cli.app import main
code = main(sys.argv[1:])
print(sorted({"torch", "diffusers", "transformers", "huggingface_hub"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def program(cache: Path, *arguments: str | Path) -> tuple[int, str, str, str]:
    """Exit code, output, sentence and libraries of the program in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    environment.pop("INFLATE_CACHE", None)
    command = [sys.executable, "-W", "ignore", "-c", _RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    *said, libraries = done.stderr.strip().split("\n")
    return done.returncode, done.stdout, "\n".join(said), libraries


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_second_process_needs_no_torch_and_writes_and_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build("sd15").save_pretrained(tmp_path / "image")
    cache, results = tmp_path / "cache", []
    for number in range(2):
        video = tmp_path / f"video{number}"
        shown = program(cache, "convert", tmp_path / "image", video, "--json")
        looked = program(cache, "inspect", video, "--json")
        plain = program(cache, "inspect", tmp_path / "image", "--scheme", "lean", "--sites")
        results.append([one[:3] for one in (shown, looked, plain)])
        assert all(one[0] == 0 for one in (shown, looked, plain))
        assert ["torch" in one[3] for one in (shown, looked, plain)] == [not number, False, not number]
        assert number == 0 or [one[3] for one in (shown, looked, plain)] == ["[]"] * 3
    first, second = ([tuple(str(part).replace("video1", "video0") for part in one) for one in all] for all in results)
    assert first == second
    assert content(tmp_path / "video0") == content(tmp_path / "video1")

    config = tmp_path / "image" / "config.json"
    weights = next((tmp_path / "image").glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole.replace(b"conv_out.bias", b"conv_out.bios"))
    refused = program(cache, "convert", tmp_path / "image", tmp_path / "no")
    assert main(["convert", str(tmp_path / "image"), str(tmp_path / "no")]) == refused[0] == 2
    assert refused[2] == capsys.readouterr().err.strip() and "'conv_out.bias' is missing" in refused[2]
    assert refused[3] == "[]"
    weights.write_bytes(whole)
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"block_out_channels": [8, 24]}))
    refused = program(cache, "convert", tmp_path / "image", tmp_path / "no")
    assert refused[0] == 2 and "has shape" in refused[2], "another config is another architecture"
