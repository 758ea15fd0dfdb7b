"""A few visitors at once, by the benchmark's own hands: videos or sentences, nothing else, and nothing is left."""

import asyncio
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.cascade.test_applications import Doubling, RecordingInterpolation
from tests.models.tiny_family import tiny_cascade
from tests.page.serve import served

pytest.importorskip("gradio", reason="the page needs the app extra")
# Gradio and its servers warn of their own deprecations, which are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
FILE = Path(__file__).parents[2] / "benchmarks" / "page_load.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("page_load", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["page_load"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_visitors_get_videos_or_sentences_and_leave_nothing(benchmark: ModuleType, tmp_path: Path) -> None:
    tally, looks = benchmark.Tally(), []
    stages = (*tiny_cascade().stages, RecordingInterpolation(), Doubling())
    with served(stages, max_waiting=1, max_size=benchmark.MAX_SIZE) as running:
        inputs = benchmark.make_inputs(tmp_path)
        look = lambda: looks.append(running.handlers.line.running())  # noqa: E731
        asyncio.run(benchmark.load(running.url, 6, 8, tally, inputs, look))
        assert not tally.errors
        assert tally.counts["made"] >= 1 and tally.counts["refused"] >= 1
        assert max(looks) <= 2, "one runs and one waits"
        assert running.handlers.line.running() == 0
        assert any(path.is_file() for path in running.folder.rglob("inflate.mp4"))
        running.shelf.sweep(time.time() + running.shelf.keep_seconds + 1)
        assert [path.name for path in running.folder.rglob("*") if path.is_file()] == [".in-use"]
    assert not running.folder.exists()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("playlist", "a playlist (HLS, mNuN)"),
        ("large", "This is too large: at most N MB can be uploaded."),
        ("path", "Only files that were uploaded here can be used"),
    ],
)
def test_what_is_not_taken_is_refused_in_a_sentence(
    benchmark: ModuleType, tmp_path: Path, wish: str, sentence: str
) -> None:
    tally = benchmark.Tally()
    with served(tiny_cascade().stages, max_size=benchmark.MAX_SIZE) as running:
        inputs = benchmark.make_inputs(tmp_path)
        visitor = benchmark.Visitor(1, running.url, benchmark.events_of(running.url), tally, inputs)
        asyncio.run(visitor.visit(wish))
    assert dict(tally.counts) == {"refused": 1}
    assert any(sentence in said for said in tally.refusals)
