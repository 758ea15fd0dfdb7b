"""The whole chain by chunks: the video that the call makes, up to 8-bit files between stages, in bounded memory."""

from pathlib import Path
from typing import Any

import pytest
import torch

from inflate.cancelling import CancelledError
from inflate.cascade import Cascade
from inflate.cascade.frame_file import FrameFile
from inflate.errors import InputError
from inflate.stages import ChainState, Segment
from tests.cli.toys import tiny_chain
from tests.models.tiny_family import tiny_cascade

ONCE: dict[str, Any] = {"num_inference_steps": {"prior": 2, "decoder": 1}, "guidance_scale": 1.0}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def chain() -> Cascade:
    return tiny_chain()


def test_the_decoder_s_stream_is_the_video_bit_for_bit() -> None:
    cascade = tiny_cascade()
    whole: Any = cascade("red heart", 22, generator=seeded(0), output_type="pt", frame_skip=1).frames
    made = cascade.stream("red heart", 22, generator=seeded(0), frame_skip=1)
    chunks = list(made.chunks)
    assert made.num_frames == 22 and made.fps == 8 and [chunk.shape[1] for chunk in chunks] == [16, 6]
    streamed = ((torch.cat(chunks, dim=1) + 1) / 2).transpose(0, 1)
    assert torch.equal(streamed, whole[0])


def test_all_stages_stream(chain: Cascade) -> None:
    whole: Any = chain("red heart", 10, generator=seeded(0), output_type="pt", frame_skip=3, **ONCE)
    made = chain.stream("red heart", 10, generator=seeded(0), frame_skip=3, **ONCE)
    chunks = list(made.chunks)
    assert made.num_frames == sum(chunk.shape[1] for chunk in chunks) == 28 and made.fps == whole.fps == 24
    streamed = ((torch.cat(chunks, dim=1) + 1) / 2).transpose(0, 1)
    assert streamed.shape == whole.frames[0].shape
    # Random networks make much of half a level of 255.
    assert (streamed - whole.frames[0]).abs().mean() < 0.01
    other: Any = chain("moon", 10, generator=seeded(0), output_type="pt", frame_skip=3, **ONCE)
    assert (other.frames[0] - whole.frames[0]).abs().mean() > 0.02


def test_progress_goes_from_stage_to_stage_and_can_cancel(chain: Cascade) -> None:
    fractions, stages = [], []

    def on_step(cascade: Any, step: int, timestep: Any, values: dict[str, Any]) -> bool | None:
        fractions.append(values["progress"].fraction)
        stages.append(values["progress"].stage)
        return None if values["progress"].stage != "upscaler" or len(stages) - stages.index("upscaler") < 6 else False

    made = chain.stream("red heart", 10, frame_skip=2, callback_on_step_end=on_step, **ONCE)
    with pytest.raises(CancelledError, match="cancelled in upscaler, step 1 of 1"):
        list(made.chunks)
    assert list(dict.fromkeys(stages)) == ["prior", "decoder", "interpolation", "super_resolution", "upscaler"]
    assert fractions == sorted(fractions) and 0 < fractions[0] and fractions[-1] < 1


def test_stages_after_the_interpolation_are_told_its_rate_and_end_with_their_last_frame(
    chain: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, float | None] = {}
    last: dict[str, Any] = {}
    for name in ("super_resolution", "upscaler"):
        stage: Any = next(stage for stage in chain.stages if stage.name == name)

        def noting(state: ChainState, *rest: Any, name: str = name, stream: Any = stage.stream) -> Any:
            told[name] = state.fps
            return stream(state, *rest)

        monkeypatch.setattr(stage, "stream", noting)

    def on_step(cascade: Any, step: int, timestep: Any, values: dict[str, Any]) -> None:
        last[values["progress"].stage] = values["progress"]

    made = chain.stream("red heart", 10, fps=8, frame_skip=3, callback_on_step_end=on_step, **ONCE)
    assert sum(chunk.shape[1] for chunk in made.chunks) == 28
    assert told == {"super_resolution": 24, "upscaler": 24}
    for name in ("super_resolution", "upscaler"):
        assert (last[name].step + 1, last[name].video) == (last[name].num_steps, 0)
    assert last["upscaler"].fraction == pytest.approx(1)


def test_memory_does_not_grow_with_length(chain: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stage is given, and no file gives back, more than a few frames at once, whatever the length."""
    largest: list[int] = []
    plain = FrameFile.write

    def write(self: FrameFile, chunks: Any) -> int:
        def watched() -> Any:
            for chunk in chunks:
                largest.append(chunk.shape[1])
                yield chunk

        return plain(self, watched())

    monkeypatch.setattr(FrameFile, "write", write)
    peaks = []
    for count in (20, 60):
        largest.clear()
        made = chain.stream("red heart", count, frame_skip=2, until="super_resolution", **ONCE)
        peaks.append((max(chunk.shape[1] for chunk in made.chunks), max(largest)))
    assert peaks[0] == peaks[1] and max(peaks[0]) <= 16


def test_segments_change_the_video_from_their_time_on() -> None:
    cascade = tiny_cascade()
    plain, changed = (
        torch.cat(list(cascade.stream("red heart", 40, generator=seeded(0), segments=segments, **ONCE).chunks), dim=1)
        for segments in ((), [(3.0, "moon")])
    )
    difference = (plain - changed).abs().mean(dim=(0, 2, 3))
    assert difference[:20].max() == 0 and difference[-8:].min() > 1e-4
    segment = Segment(3.0, "moon", 1.0)
    again = torch.cat(list(cascade.stream("red heart", 40, generator=seeded(0), segments=[segment], **ONCE).chunks), 1)
    assert torch.equal(again, changed)


def test_what_cannot_be_streamed_is_refused(chain: Cascade) -> None:
    with pytest.raises(InputError, match="needs the decoder, which makes frames"):
        chain.stream("red heart", 20, until="prior")
    with pytest.raises(InputError, match="One video is streamed at a time, not 2"):
        chain.stream(["red heart", "moon"], 20)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="from 1 to 100000, got 100001"):
        chain.stream("red heart", 100_001)
    with pytest.raises(InputError, match="from 1 to 1024, got 1025"):
        chain("red heart", 1025)
    with pytest.raises(InputError, match="Segments follow a prompt"):
        chain(None, 20, image_embeds=torch.ones(1, 16), segments=[(1.0, "moon")])
    with pytest.raises(InputError, match="shows one thing"):
        list(chain.stream("red heart", 4, segments=[(0.2, "moon")]).chunks)


def test_a_family_on_disk_knows_its_window_before_weights_are_read(tmp_path: Path) -> None:
    tiny_cascade().save_pretrained(tmp_path / "family")
    cascade = Cascade.from_pretrained(tmp_path / "family", device="cpu")
    decoder: Any = cascade.stage("decoder")
    assert cascade.window_size() == 4 and "unet" not in decoder.components
    assert decoder.config.overlap == 0.5
