"""Cancelled work ends before its next part, wherever that is, and leaves everything as it was."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.modules.module import _global_forward_pre_hooks  # there is no public way to look

from inflate.cancelling import CancelledError, cancellable, check_cancelled, until_cancelled
from inflate.cascade import Cascade
from inflate.cascade.reconstruction import infill_video
from inflate.data import decode_video
from inflate.data.writing import write_video
from inflate.video import Video
from tests.cli.toys import tiny_chain
from tests.models.tiny_family import tiny_cascade

VIDEO = Video(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8), 8.0)


class After:
    """Asked to stop once it has been asked ``times`` times; ``asked`` counts."""

    def __init__(self, times: float) -> None:
        self.times, self.asked = times, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked > self.times


def prompt(cascade: Cascade) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.as_tensor(cascade("sun", 4, 6, generator, output_type="pt").frames)


def infill(cascade: Cascade) -> torch.Tensor:
    known = torch.tensor([True, False, False, True])
    generator = torch.Generator().manual_seed(1)
    return torch.as_tensor(infill_video(cascade, VIDEO, known, 1.0, generator=generator, output_type="pt").frames)


def embed(cascade: Cascade) -> torch.Tensor:
    return cascade.embed_images(torch.zeros(1, 3, 2, 16, 16))


@pytest.mark.parametrize("work", [prompt, infill, embed])
def test_nothing_changes_and_it_may_end_at_every_call_of_a_layer(work: Callable[[Cascade], torch.Tensor]) -> None:
    cascade = tiny_cascade()
    plain, never = work(cascade), After(float("inf"))
    with cancellable(never):
        assert torch.equal(work(cascade), plain)
    assert never.asked > 15, "the layers were not seen"
    for times in np.linspace(0, never.asked - 1, 12).astype(int):
        stop = After(times)
        with pytest.raises(CancelledError), cancellable(stop):
            work(cascade)
        assert stop.asked == times + 1, "it went on"
        assert torch.equal(work(cascade), plain), "what was cancelled left something behind"
    assert not _global_forward_pre_hooks


def test_frame_interpolation_and_super_resolution_end_within_their_networks_too() -> None:
    cascade, video = tiny_chain(), Video(VIDEO.frames[:2], 8.0)
    names, raised = [], set()

    def stop_there(name: str) -> Callable[[], bool]:
        return lambda: bool(names) and names[-1] == name

    for stage in cascade.stages:
        load = stage.load

        def noted(*arguments: object, name: str = stage.name, load: Callable[..., None] = load) -> None:
            load(*arguments)
            names.append(name)

        stage.load = noted  # pyright: ignore[reportAttributeAccessIssue]  # it says which stage runs
    for stage in cascade.stages:
        names.clear()
        with pytest.raises(CancelledError), cancellable(stop_there(stage.name)):
            cascade("sun", 2, 8, frame_skip=2) if stage.name != "upscaler" else cascade.upscale(video)
        raised.add(names[-1])
    assert raised == {stage.name for stage in cascade.stages} and len(raised) == 5


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp"])
def test_reading_and_writing_end_at_the_next_frame_and_leave_no_file(suffix: str, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    path, never = tmp_path / f"a.{suffix}", After(float("inf"))
    with cancellable(never):
        write_video(path, frames, 10)
    assert never.asked >= 20
    for times in (0, 7, 19):
        with pytest.raises(CancelledError), cancellable(After(times)):
            write_video(tmp_path / f"b.{suffix}", frames, 10)
        with pytest.raises(CancelledError), cancellable(After(times)):
            decode_video(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_other_threads_and_later_work_go_on() -> None:
    asked, made = threading.Event(), []
    layer = torch.nn.Linear(2, 2)
    with cancellable(asked.is_set):
        asked.set()
        other = threading.Thread(target=lambda: made.append(layer(torch.zeros(1, 2))))
        other.start()
        other.join()
        with pytest.raises(CancelledError):
            layer(torch.zeros(1, 2))
    layer(torch.zeros(1, 2))
    check_cancelled()
    assert len(made) == 1 and list(until_cancelled([1, 2])) == [1, 2]


def test_a_network_compiled_meanwhile_is_one_graph_with_equal_results() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)).eval()
    values = torch.randn(2, 4)
    plain = network(values)
    with cancellable(lambda: False):
        network.compile(backend="eager", fullgraph=True)
        assert torch.equal(network(values), plain)
    assert torch.equal(network(values), plain)
