"""What a chain can do than answer a prompt, on stages that show what they were given."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from inflate.cancelling import CancelledError
from inflate.cascade import Cascade
from inflate.cascade.known import KnownVideo, extend_stream, interpolate_stream
from inflate.errors import InputError
from inflate.stages import ChainState, ComponentStage, OnStep, StageSettings
from inflate.video import Video
from tests.models.tiny_family import WIDTH, tiny_cascade

SIZE = 16  # of the tiny family's frames


class RecordingInterpolation(ComponentStage):
    """Remembers the state; unknown frames become white."""

    name: ClassVar[str] = "interpolation"
    defaults = StageSettings(2)

    def __init__(self) -> None:
        super().__init__({})
        self.seen: list[ChainState] = []

    def done(self, state: ChainState) -> bool:
        return self.name in state.passed

    def work(self, state: ChainState, settings: StageSettings) -> float:
        return 1.0

    def __call__(self, state: ChainState, settings: StageSettings, on_step: OnStep) -> ChainState:
        self.seen.append(state)
        assert state.frames is not None
        on_step(0, 0, torch.zeros(()), state.frames)
        on_step(0, 1, torch.zeros(()), state.frames)
        frames = state.frames.clone()
        if state.known_frames is not None:
            frames[:, :, ~state.known_frames] = 1.0
        return replace(state, frames=frames, known_frames=None, passed=(*state.passed, self.name))


@dataclass(frozen=True)
class Twice:
    scale: int = 2


class Doubling(ComponentStage):
    """Twice as large, by repeating pixels; streams."""

    name: ClassVar[str] = "super_resolution"
    defaults = StageSettings(1)
    makes_frames: ClassVar[bool] = True
    enlarges: ClassVar[bool] = True
    config_class = Twice

    def __init__(self) -> None:
        super().__init__({})
        self.loads, self.releases, self.seeds, self.rates = 0, 0, [], []

    def load(self, device: torch.device, dtype: torch.dtype, roles: Any = None) -> None:
        self.loads += 1

    def release(self) -> None:
        self.releases += 1

    def done(self, state: ChainState) -> bool:
        return self.name in state.passed

    def work(self, state: ChainState, settings: StageSettings) -> float:
        return 1.0

    def seconds(self, state: ChainState, height: int, width: int, settings: StageSettings) -> float:
        return state.num_frames * height * width * 1e-3

    def store_bytes(self, height: int, width: int) -> int:
        return 1000 * height * width

    def stream(
        self,
        state: ChainState,
        video: int,
        chunks: Iterable[Tensor] | None,
        settings: StageSettings,
        on_step: OnStep,
    ) -> Iterator[Tensor]:
        assert chunks is not None
        self.seeds.append(state.seeds[video])
        self.rates.append(state.fps or None)
        done = 0
        for chunk in chunks:
            large = chunk.repeat_interleave(2, -1).repeat_interleave(2, -2)
            done += chunk.shape[1]
            yield large
            on_step(video, 0, torch.zeros(()), large[None], done / state.num_frames if state.num_frames else 0)


class DoublingAgain(Doubling):
    """The same, as the last stage."""

    name: ClassVar[str] = "upscaler"


@pytest.fixture
def interpolation() -> RecordingInterpolation:
    return RecordingInterpolation()


@pytest.fixture
def cascade(interpolation: RecordingInterpolation) -> Cascade:
    stages = (*tiny_cascade().stages, interpolation, Doubling(), DoublingAgain())
    return Cascade(stages, device="cpu", keep_loaded=True)


def picture(level: int = 0, size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def video(num_frames: int = 5, fps: float = 8, size: int = SIZE) -> Video:
    frames = np.stack([picture(20 * index, (size, size)) for index in range(num_frames)])
    return Video(frames, fps)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_animate_gives_the_image_as_first_frame_and_as_condition(cascade: Any, interpolation: Any) -> None:
    out = cascade.animate(picture(40), num_frames=6, fps=8, generator=seeded(), output_type="np")
    assert out.frames.shape == (1, 6, 4 * SIZE, 4 * SIZE, 3) and out.fps == 8
    [state] = interpolation.seen
    assert state.known_frames.tolist() == [True] + [False] * 5 and state.frame_skip == 1
    assert np.allclose(out.frames[0, 0], 40 / 255, atol=1e-6) and np.all(out.frames[0, 1:] == 1)
    embeds = cascade.embed_images(torch.full((1, 3, 1, SIZE, SIZE), 40 / 127.5 - 1))
    torch.testing.assert_close(state.image_embeds, embeds)


def test_interpolate_knows_both_ends(cascade: Any, interpolation: Any) -> None:
    out = cascade.interpolate(
        picture(0), picture(80), num_frames=4, frame_skip=3, output_type="np", until="interpolation"
    )
    [state] = interpolation.seen
    assert state.known_frames.tolist() == [True, False, False, True] and state.frame_skip == 3
    assert out.frames.shape[2:4] == (SIZE, SIZE)
    assert np.allclose(out.frames[0, 0], 0) and np.allclose(out.frames[0, 3], 80 / 255, atol=1e-6)
    mean = cascade.embed_images(state.frames[:, :, [0, 3]])
    torch.testing.assert_close(state.image_embeds, mean)
    assert state.image_embeds.norm() == pytest.approx(1)


def test_interpolating_a_video_leaves_the_spreading_to_the_stage(cascade: Any, interpolation: Any) -> None:
    cascade.interpolate_video(video(size=24), frame_skip=5, until="interpolation")
    [state] = interpolation.seen
    assert state.frames.shape == (1, 3, 5, SIZE, SIZE) and state.known_frames is None and state.frame_skip == 5
    assert state.image_embeds.shape == (1, WIDTH) and state.fps == 8


def test_extend_keeps_the_video_and_adds_frames(cascade: Any, interpolation: Any) -> None:
    out = cascade.extend(video(), num_frames=3, output_type="np", until="interpolation")
    [state] = interpolation.seen
    assert state.known_frames.tolist() == [True] * 5 + [False] * 3 and state.frame_skip == 1
    assert out.frames.shape[1] == 8 and np.allclose(out.frames[0, 4], 80 / 255, atol=1e-6)


def test_vary_starts_from_the_mean_embedding(cascade: Any, interpolation: Any) -> None:
    out = cascade.vary(video(), num_frames=4, generator=seeded(), output_type="np")
    assert out.frames.shape == (1, 4, 4 * SIZE, 4 * SIZE, 3)
    from inflate.cascade.inputs import video_frames

    torch.testing.assert_close(out.image_embeds, cascade.embed_images(video_frames(video(), (SIZE, SIZE))))
    assert interpolation.seen[0].frame_skip == 5


def test_upscale_runs_the_super_resolution_stages_only(cascade: Any, interpolation: Any) -> None:
    out = cascade.upscale(video(size=10), output_type="np")
    assert out.frames.shape == (1, 5, 40, 40, 3) and not interpolation.seen
    assert np.allclose(out.frames[0, 3], 60 / 255, atol=1e-6)
    half = cascade.upscale(video(size=10), output_type="np", until="super_resolution")
    assert half.frames.shape == (1, 5, 20, 20, 3)


@pytest.mark.parametrize("cut", [1, 3, 16, 100])
def test_streaming_gives_the_same_frames_stage_after_stage(cut: int) -> None:
    first, second = Doubling(), DoublingAgain()
    cascade = Cascade([first, second], device="cpu")
    whole = torch.randint(0, 256, (3, 40, 6, 6)) / 127.5 - 1
    chunks = cascade.upscale_chunks(iter(whole.split(cut, dim=1)), 40, generator=seeded())
    made = next(chunks)
    assert first.releases == 1 and second.releases == 0  # the first is gone before the second begins
    made = torch.cat([made, *chunks], 1)
    assert torch.allclose(made, whole.repeat_interleave(4, -1).repeat_interleave(4, -2), atol=1e-6)
    assert second.releases == 1 and first.seeds == second.seeds


def test_streaming_reports_rising_progress_and_can_be_cancelled() -> None:
    cascade = Cascade([Doubling(), DoublingAgain()], device="cpu")
    seen: list[float] = []

    def callback(cascade: Cascade, step: int, timestep: Tensor, values: dict[str, Any]) -> bool:
        seen.append(values["progress"].fraction)
        return len(seen) < 5

    chunks = [torch.zeros(3, 4, 4, 4)] * 4
    with pytest.raises(CancelledError, match="cancelled in upscaler, step 1 of 1"):
        list(cascade.upscale_chunks(iter(chunks), 16, callback_on_step_end=callback))
    assert seen == sorted(seen) and seen[3] == pytest.approx(0.5)


def test_every_way_to_enlarge_tells_the_frame_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [Doubling(), DoublingAgain()]
    cascade, clip = Cascade(stages, device="cpu"), video(size=10)
    assert clip.fps == 8
    list(cascade.upscale_chunks(iter([torch.zeros(3, 4, 4, 4)]), 4, fps=8.0))
    monkeypatch.setattr("inflate.cascade.applications._HELD_BYTES", 0)
    cascade.upscale(clip)
    assert [stage.rates for stage in stages] == [[8.0, 8.0]] * 2


def test_a_stream_may_be_read_by_turns_while_other_videos_are_made() -> None:
    """Each runs when it is asked for a chunk; weights are let go of when the last of both is done."""
    stage = Doubling()
    cascade = Cascade([stage], device="cpu")
    first, second = (cascade.upscale_chunks(iter([torch.full((3, 1, 4, 4), value)] * 3), 3) for value in (0.1, 0.2))
    next(first)
    made: list[Tensor] = []
    # Another thread goes on with the first stream while this one is in the middle of its own.
    next(second)
    reader = threading.Thread(target=lambda: made.extend(first))
    reader.start()
    reader.join(60)
    assert [float(chunk.max()) for chunk in made] == [pytest.approx(0.1)] * 2 and not stage.releases
    assert len(list(second)) == 2 and stage.releases == 1


def test_stages_of_several_threads_run_one_after_the_other() -> None:
    running, most, inside = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    class Counting(Doubling):
        def stream(self, *arguments: Any, **named: Any) -> Iterator[Tensor]:
            nonlocal running, most
            for chunk in super().stream(*arguments, **named):
                with inside:
                    running += 1
                    most = max(most, running)
                threading.Event().wait(0.01)  # room for another to come in
                with inside:
                    running -= 1
                yield chunk

    cascade = Cascade([Counting()], device="cpu")

    def read() -> None:
        both.wait(60)
        list(cascade.upscale_chunks((torch.zeros(3, 1, 4, 4) for _ in range(4)), 4))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert most == 1


def test_a_stream_that_is_given_up_lets_go_of_its_stage() -> None:
    stage = Doubling()
    stream = Cascade([stage], device="cpu").upscale_chunks((torch.zeros(3, 1, 4, 4) for _ in range(9)), 9)
    next(stream)
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]  # it is a generator
    assert stage.releases == 1


def test_streaming_needs_no_more_memory_for_more_frames(tmp_path: Path) -> None:
    cascade = Cascade([Doubling(), DoublingAgain()], device="cpu")
    sizes = []
    for count in (8, 80):
        live = []
        for chunk in cascade.upscale_chunks((torch.zeros(3, 2, 8, 8) for _ in range(count)), 2 * count):
            live.append(chunk.shape[1])
        assert sum(live) == 2 * count
        sizes.append(max(live))
    assert sizes[0] == sizes[1] == 16


def test_a_stage_callback_sees_each_result_and_can_cancel(cascade: Any) -> None:
    seen = []

    def callback(cascade: Cascade, name: str, state: ChainState) -> bool:
        seen.append((name, None if state.frames is None else tuple(state.frames.shape[-3:])))
        return name != "super_resolution"

    with pytest.raises(CancelledError, match="cancelled after super_resolution"):
        cascade("sun", 4, frame_skip=1, callback_on_stage_end=callback)
    assert [name for name, _ in seen] == ["prior", "decoder", "interpolation", "super_resolution"]
    assert seen[0][1] is None and seen[1][1] == (4, SIZE, SIZE) and seen[3][1] == (4, 2 * SIZE, 2 * SIZE)


def test_pictures_of_all_kinds_are_taken(cascade: Any, interpolation: Any) -> None:
    wide = Image.new("RGBA", (32, 16), (0, 0, 0, 0))
    for given in (wide, picture(255, (8, 30)), torch.ones(3, 20, 10)):
        cascade.animate(given, num_frames=2, until="interpolation")
        assert torch.all(interpolation.seen[-1].frames[:, :, 0] == 1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda c: c.animate("cat.png"), "A picture must be a PIL picture"),
        (lambda c: c.animate(np.zeros((4, 4), np.uint8)), "A picture must be a PIL picture"),
        (lambda c: c.animate(np.zeros((2, 9000, 3), np.uint8)), "9000 x 2 pixels; make it smaller"),
        (lambda c: c.interpolate(picture(), picture(), num_frames=1), "num_frames of 2 or more"),
        (lambda c: c.extend(video(), num_frames=2000), "num_frames must be a whole number"),
        (lambda c: c.animate(picture(), fps=0), "fps must be above 0"),
        (lambda c: c.animate(picture(), frame_skip=0), "frame_skip must be a whole number from 1"),
        (lambda c: c.upscale(video(), until="decoder"), "has no super-resolution stage"),
        (lambda c: c.animate(picture(), until="decoder"), "until='decoder' stops before interpolation, which makes"),
        (lambda c: c.interpolate(picture(), picture(), until="decoder"), "stops before interpolation"),
        (lambda c: c.interpolate_video(video(), until="prior"), "until='prior' stops before interpolation"),
        (lambda c: c.extend(video(), until="decoder"), "stops before interpolation"),
        (lambda c: interpolate_stream(c, KnownVideo([], 300, 8), until="decoder"), "stops before interpolation"),
        (lambda c: extend_stream(c, KnownVideo([], 300, 8), until="decoder"), "stops before interpolation"),
        (lambda c: c.upscale(video(), output_type="pill"), "did you mean 'pil'"),
        (lambda c: tiny_cascade().animate(picture()), "has no interpolation stage, which this needs; it has prior"),
        (lambda c: Cascade([DoublingAgain()], "cpu").vary(video()), "no decoder"),
        (lambda c: Cascade([RecordingInterpolation()], "cpu").extend(video()), "has no CLIP model"),
    ],
)
def test_bad_requests_are_one_sentence(cascade: Any, call: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call(cascade)
