"""Frames between or behind those of a video that is read once and never lies in memory."""

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inflate.cancelling import CancelledError
from inflate.cascade import Cascade
from inflate.cascade.frame_file import FrameFile
from inflate.cascade.inputs import Timing, first_state
from inflate.cascade.known import KnownVideo, extend_stream, interpolate_stream
from inflate.cascade.timing import seconds_of_known, seconds_of_stream
from inflate.errors import InputError
from inflate.video import Video
from tests.cascade.test_applications import RecordingInterpolation, seeded
from tests.cli.toys import tiny_chain
from tests.models.tiny_family import tiny_cascade

SIDE = 16  # of the tiny family's frames
ONCE: dict[str, Any] = {"num_inference_steps": 1}


@pytest.fixture(scope="module")
def chain() -> Cascade:
    return tiny_chain()


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def known(count: int, at_once: int = 3) -> KnownVideo:
    def chunks() -> Iterator[np.ndarray]:
        for first in range(0, count, at_once):
            yield np.stack([picture(number) for number in range(first, min(first + at_once, count))])

    return KnownVideo(chunks(), count, 8.0)


def whole(count: int) -> Video:
    return Video(np.stack([picture(number) for number in range(count)]), 8.0)


def joined(chunks: Iterator[Tensor]) -> Tensor:
    return (torch.cat(list(chunks), dim=1).transpose(0, 1) + 1) / 2


@pytest.mark.parametrize("skip", [1, 3])
def test_frames_between_are_those_that_are_made_in_memory(chain: Any, skip: int) -> None:
    for until in ("interpolation", "upscaler"):
        options: dict[str, Any] = {**ONCE, "until": until}
        made = interpolate_stream(chain, known(9), skip, generator=seeded(), **options)
        streamed = joined(made.chunks)
        memory = chain.interpolate_video(whole(9), skip, generator=seeded(), output_type="pt", **options)
        assert made.num_frames == len(streamed) == 8 * skip + 1 and made.fps == memory.fps == 8 * skip
        assert streamed.shape == memory.frames[0].shape
        # Between stages frames are 8-bit pixels, of whose rounding random networks make much.
        assert (streamed - memory.frames[0]).abs().mean() < (1e-5 if until == "interpolation" else 0.01)


def test_frames_behind_follow_the_known_ones_at_their_place(chain: Any) -> None:
    options: dict[str, Any] = {**ONCE, "until": "interpolation"}
    made = extend_stream(chain, known(20), 5, generator=seeded(), **options)
    streamed = joined(made.chunks)
    assert made.num_frames == len(streamed) == 25 and made.fps == 8
    own = torch.from_numpy(whole(20).frames).permute(0, 3, 1, 2) / 255
    assert torch.allclose(streamed[:20], own, atol=1e-6)
    assert (streamed[20:] - streamed[19]).abs().mean(dim=(1, 2, 3)).min() > 0.01
    memory = chain.extend(whole(20), 5, generator=seeded(), output_type="pt", **options)
    assert memory.frames[0].shape == streamed.shape


def test_new_frames_are_told_the_last_ones_of_the_video_and_enlarged_with_it(chain: Any) -> None:
    """What lies further back than the network sees has no say in them but through the embedding of all."""
    window = chain.stage("interpolation").window_size()

    def ends(count: int) -> Tensor:
        video = known(count)
        flat = KnownVideo((np.full_like(chunk, 90) for chunk in video.chunks), count, 8.0)
        return joined(extend_stream(chain, flat, 4, generator=seeded(), until="interpolation", **ONCE).chunks)[-4:]

    torch.testing.assert_close(ends(3 * window), ends(6 * window), atol=1e-4, rtol=0)
    large = joined(extend_stream(chain, known(6), 4, generator=seeded(), **ONCE).chunks)
    assert large.shape == (10, 3, 8 * SIDE, 8 * SIDE)


@pytest.mark.parametrize("begin", [interpolate_stream, extend_stream])
def test_memory_does_not_grow_with_the_video(chain: Any, monkeypatch: pytest.MonkeyPatch, begin: Any) -> None:
    def live_bytes() -> int:
        storages = [found.untyped_storage() for found in gc.get_objects() if type(found) is Tensor]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    peaks = []
    for count in (30, 300):
        gc.collect()
        before, peak = live_bytes(), 0
        made = begin(chain, known(count), 2, generator=seeded(), until="interpolation", **ONCE)
        for number, _ in enumerate(made.chunks):
            if number % 8 == 0:
                peak = max(peak, live_bytes() - before)
        peaks.append(peak)
    assert peaks[1] < 1.2 * peaks[0] + 20_000, f"{peaks[0]} bytes became {peaks[1]}"


def test_varying_takes_chunks_too(chain: Any) -> None:
    options: dict[str, Any] = {**ONCE, "until": "decoder", "output_type": "pt"}
    streamed = chain.vary_chunks(known(7).chunks, 4, generator=seeded(), **options)
    memory = chain.vary(whole(7), 4, generator=seeded(), **options)
    torch.testing.assert_close(streamed.image_embeds, memory.image_embeds)
    assert torch.allclose(streamed.frames, memory.frames, atol=1e-4)


@pytest.mark.parametrize(("begin", "last"), [(interpolate_stream, 0.99), (extend_stream, 0.99)])
def test_progress_rises_over_all_stages_and_cancels(chain: Any, begin: Any, last: float) -> None:
    seen: list[tuple[str, float]] = []

    def on_step(cascade: Any, step: int, timestep: Any, values: dict[str, Any]) -> None:
        seen.append((values["progress"].stage, values["progress"].fraction))

    list(begin(chain, known(12), 3, callback_on_step_end=on_step, **ONCE).chunks)
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions) and 0 < fractions[0] and last < fractions[-1] <= 1 + 1e-9
    assert list(dict.fromkeys(name for name, _ in seen)) == ["interpolation", "super_resolution", "upscaler"]
    with pytest.raises(CancelledError):
        list(begin(chain, known(12), 3, callback_on_step_end=lambda *given: False, **ONCE).chunks)


def test_bad_requests_are_one_sentence(chain: Any) -> None:
    with pytest.raises(InputError, match="has no interpolation stage, which this needs"):
        interpolate_stream(tiny_cascade(), known(3), 2)
    with pytest.raises(InputError, match="from 1 to 1024, got 1025"):
        extend_stream(chain, known(3), 1025)
    with pytest.raises(InputError, match="from 1 to 100000, got 100001"):
        interpolate_stream(chain, KnownVideo([], 100_001, 8.0), 2)
    stages = (*tiny_cascade().stages, RecordingInterpolation())
    with pytest.raises(InputError, match="works on whole videos only"):
        list(interpolate_stream(Cascade(stages, device="cpu", keep_loaded=True), known(3), 2).chunks)


def test_a_file_of_frames_is_read_from_any_frame_on() -> None:
    file = FrameFile()
    frames = torch.arange(30, dtype=torch.float32)[None, :, None, None].expand(3, 30, 2, 4) / 127.5 - 1
    assert file.write(frames.split(7, dim=1)) == 30
    for first in (0, 11, 29, 30):
        read = list(file.read(first))
        assert sum(chunk.shape[1] for chunk in read) == 30 - first
        if read:
            torch.testing.assert_close(torch.cat(read, dim=1), frames[:, first:])


def test_frames_between_stages_have_no_name_that_a_killed_process_could_leave(
    chain: Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written: list[int] = []
    plain = FrameFile.write

    def write(self: FrameFile, chunks: Iterator[Tensor]) -> int:
        written.append(plain(self, chunks))
        return written[-1]

    monkeypatch.setattr(FrameFile, "write", write)
    for stream in (interpolate_stream(chain, known(3), 2, **ONCE), extend_stream(chain, known(3), 2, **ONCE)):
        for _ in stream.chunks:
            assert not list(tmp_path.iterdir())
    assert len(written) >= 4


class Clock:
    """A clock that networks move, by one second for each pixel that they see."""

    now = 0.0

    def moves(self, module: Any, inputs: Any) -> None:
        self.now += inputs[0].numel() // inputs[0].shape[1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: made.now)
    return made


def test_the_time_is_that_of_one_window_as_often_as_there_are(
    chain: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inflate.cascade.timing._LONG", 40)
    cascade = Cascade(chain.stages, device="cpu", keep_loaded=True)
    networks = {"interpolation_unet", "frame_decoder", "sr_unet", "upscaler_unet"}
    hooks = [
        network.register_forward_pre_hook(clock.moves)
        for stage in cascade.stages
        for name, network in stage.components.items()  # pyright: ignore[reportAttributeAccessIssue]
        if name in networks
    ]
    assert len(hooks) == len(networks)
    try:
        for until in ("interpolation", "super_resolution"):
            for told, made in (
                (
                    seconds_of_known(cascade, whole(30), 3, until=until, **ONCE),
                    interpolate_stream(cascade, known(30), 3, generator=seeded(), until=until, **ONCE),
                ),
                (
                    seconds_of_known(cascade, whole(40), new=12, until=until, **ONCE),
                    extend_stream(cascade, known(40), 12, generator=seeded(), until=until, **ONCE),
                ),
            ):
                before = clock.now
                joined(made.chunks)
                assert clock.now > before and told == pytest.approx(clock.now - before, rel=0.2)
    finally:
        for hook in hooks:
            hook.remove()


def test_no_time_is_told_where_finding_it_out_takes_long(chain: Any) -> None:
    assert seconds_of_known(chain, whole(9), 3, **ONCE) is None
    mute = Cascade((*tiny_cascade().stages, RecordingInterpolation()), device="cpu", keep_loaded=True)
    assert seconds_of_known(mute, whole(80), 3, **ONCE) is None, "this stage cannot tell"


def test_the_time_of_a_drawn_video_is_that_of_its_windows(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inflate.cascade.timing._LONG", 20)
    cascade: Any = tiny_chain()
    for stage, name in ((1, "unet"), (2, "frame_decoder"), (3, "sr_unet")):
        cascade.stages[stage].components[name].register_forward_pre_hook(clock.moves)
    for until in ("decoder", "super_resolution"):
        timing = Timing(24, 8.0, 3, 24)
        state = first_state("red sun", None, timing, None, (), False)
        found = seconds_of_stream(cascade, state, cascade.settings(num_inference_steps=2), until)
        assert found is not None
        made, before = (
            cascade.stream("red sun", 24, 8.0, seeded(), frame_skip=3, until=until, num_inference_steps=2),
            clock.now,
        )
        frames = joined(made.chunks)
        assert clock.now > before and found[0] == pytest.approx(clock.now - before, rel=0.2)
        assert found[1:] == (len(frames), tuple(frames.shape[2:]))
    short = first_state("red sun", None, Timing(16, 8.0, 3, 24), None, (), False)
    assert seconds_of_stream(cascade, short, cascade.settings(num_inference_steps=2)) is None
