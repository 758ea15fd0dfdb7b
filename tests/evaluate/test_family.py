"""The measures on a family of tiny parts: an inflated UNet, a data set of grey pictures, a generator made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from inflate.data import DataReport, FrameCache, FrameEntry
from inflate.errors import InputError
from inflate.evaluate.family import (
    DecoderParts,
    encode_clips,
    evaluate_denoising,
    evaluate_motion,
    evaluate_retrieval,
    prompt_seed,
)
from inflate.evaluate.things import Things, find_things
from inflate.inflater import InflatedModel, inflate
from inflate.video import fold_frames

SIZE, FRAMES, WIDTH = 8, 4, 8


@pytest.fixture
def things(tmp_path: Path) -> Things:
    """Six things, each a random picture and a clip in which it fades; all in the training split."""
    rng = np.random.default_rng(0)
    entries, frames = [], []
    for number in range(6):
        picture = rng.integers(0, 256, (SIZE, SIZE, 3))
        for kind, count in (("still", 1), ("clip", 12)):
            start = sum(len(part) for part in frames)
            fade = 1 - 0.06 * np.arange(count)
            frames.append((picture * fade[:, None, None, None]).astype(np.uint8))
            entry = FrameEntry(
                f"{number:x}",
                f"thing {number}",
                (),
                "train",
                kind,
                start,
                count,
                np.arange(count) / 30,
                count / 30,
                False,
            )
            entries.append(entry)
    np.concatenate(frames).tofile(tmp_path / "frames.bin")
    return find_things(FrameCache(tmp_path, "the data", SIZE, tuple(entries), DataReport(len(entries))))


def colours(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.flatten(1)


def test_a_family_that_draws_the_right_thing_is_found_and_one_that_does_not_is_not(things: Things):
    seeds = []

    def right(name: str, num_frames: int, fps: float, seed: int) -> torch.Tensor:
        seeds.append(seed)
        return things.stills_of([name])[:, :, None].expand(1, 3, num_frames, SIZE, SIZE)

    def wrong(name: str, num_frames: int, fps: float, seed: int) -> torch.Tensor:
        other = f"{(int(name, 16) + 1) % 6:x}"
        return things.stills_of([other])[:, :, None].expand(1, 3, num_frames, SIZE, SIZE)

    done = []
    result = evaluate_retrieval(
        right, things, colours, reconstruct=lambda x: 1 - x, prompts=4, top=2, on_clip=lambda: done.append(1)
    )
    assert result.report.score.top_1 == result.report.score.queries == 4
    assert result.report.score.gallery == 6
    assert len(done) == 4 and len(set(seeds)) == 4
    assert np.array_equal(result.generated, result.stills)
    # A fading clip keeps its colours, a negative does not.
    assert result.report.ceilings["middle frames of real clips"].top_1 == 4
    assert result.report.ceilings["stills through the autoencoder"].top_1 < 4
    assert evaluate_retrieval(wrong, things, colours, prompts=4, top=2).report.score.top_1 == 0


def test_the_generated_middle_frame_is_what_counts(things: Things):
    def only_the_middle(name: str, num_frames: int, fps: float, seed: int) -> torch.Tensor:
        clip = torch.zeros(1, 3, num_frames, SIZE, SIZE)
        clip[0, :, num_frames // 2] = things.stills_of([name])[0]
        return clip

    assert evaluate_retrieval(only_the_middle, things, colours, prompts=6, top=1).report.score.top_1 == 6


def test_a_model_of_another_size_is_refused(things: Things):
    with pytest.raises(InputError, match="makes pictures of 16 px and the data was read at 8 px"):
        evaluate_retrieval(
            lambda name, num_frames, fps, seed: torch.zeros(1, 3, num_frames, 16, 16), things, colours, prompts=1
        )


def test_motion_of_the_real_clips_themselves_has_ratio_one(things: Things):
    calls = []

    def replay(name: str, num_frames: int, fps: float, seed: int) -> torch.Tensor:
        calls.append((name, fps, seed))
        return things.clip_of(name, fps, num_frames)

    report = evaluate_motion(replay, things, prompts=2, num_frames=3, frame_rates=(8.0, 16.0))
    assert [row.ratio for row in report.rows] == pytest.approx([1.0, 1.0])
    assert report.passes
    assert len({seed for _, _, seed in calls}) == 2, "one seed per thing, the same at each frame rate"
    assert prompt_seed(0, "a") != prompt_seed(1, "a")


@pytest.fixture
def video_model() -> InflatedModel:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=WIDTH,
    )
    return inflate(unet.eval().requires_grad_(False), num_frames=FRAMES)


def parts_of(model: InflatedModel) -> DecoderParts:
    projection = torch.randn(3 * SIZE * SIZE, WIDTH, generator=torch.Generator().manual_seed(1))
    return DecoderParts(
        video_model=model,
        alphas_cumprod=torch.linspace(0.99, 0.01, 10),
        prediction_type="v_prediction",
        encode_image=lambda pixels: pixels.flatten(1) @ projection,
        encode_pixels=lambda pixels: 0.5 * pixels,
        conditioning=lambda embeds: {"class_labels": embeds, "encoder_hidden_states": embeds[:, None]},
    )


def test_a_freshly_inflated_model_ties_with_its_image_model_and_a_changed_one_does_not(
    things: Things, video_model: InflatedModel
):
    def measure():
        return evaluate_denoising(
            parts_of(video_model),
            things,
            split="train",
            clips=2,
            num_frames=FRAMES,
            frame_rates=(8.0, 30.0),
            timesteps=(1, 8),
            batch_size=1,
        )

    fresh = measure()
    assert [(row.fps, row.timestep) for row in fresh.rows] == [(8.0, 1), (8.0, 8), (30.0, 1), (30.0, 8)]
    for row in fresh.rows:
        assert row.video_model == pytest.approx(row.image_model, rel=1e-6)
    with torch.no_grad():
        for parameter in video_model.temporal_parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    changed = measure()
    for before, after in zip(fresh.rows, changed.rows, strict=True):
        assert after.image_model == before.image_model, "the image model must not see the temporal layers"
        assert abs(after.video_model - before.video_model) > 1e-4 * before.video_model


def test_the_condition_is_the_middle_frame(things: Things, video_model: InflatedModel):
    parts = parts_of(video_model)
    coded = encode_clips(parts, things, ["3"], 8.0, FRAMES)
    pixels = things.clip_of("3", 8.0, FRAMES) * 2 - 1
    assert torch.allclose(coded.latents, 0.5 * pixels)
    assert torch.allclose(coded.embeddings, parts.encode_image(fold_frames(pixels)[FRAMES // 2][None]), atol=1e-5)


def test_a_split_without_clips_is_refused(things: Things, video_model: InflatedModel):
    with pytest.raises(InputError, match="no clips with a caption in its test split"):
        evaluate_denoising(parts_of(video_model), things, split="test")
