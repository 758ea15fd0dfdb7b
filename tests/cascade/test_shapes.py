"""Frames have the shape of the pictures they are made of, as far as the networks can, and squares stay as they were."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inflate.cascade import Cascade
from inflate.cascade.constrained import enlarge_video, raise_frame_rate
from inflate.cascade.inputs import picture_frames, video_frames
from inflate.cascade.reconstruction import extend_video, infill_video
from inflate.cascade.shapes import LONGEST, cropped_share, fitting_size
from inflate.data.decode import fit_square
from inflate.models.transformers import LabelDecoderStage
from inflate.video import Video
from tests.models.tiny_family import tiny_cascade

USUAL = (64, 64)  # of bundled:emoji, whose sides are multiples of 8

# height, width -> height, width
SIZES = {
    (720, 1280): (48, 88),
    (1280, 720): (88, 48),
    (480, 640): (56, 72),
    (1080, 2592): (40, 96),
    (2400, 1080): (88, 40),
    (100, 100): (64, 64),
    (7, 7): (64, 64),
    (500, 512): (64, 64),
    (100, 1000): (40, 120),
    (3, 900): (40, 120),
    (900, 3): (120, 40),
}


@pytest.mark.parametrize(("given", "made"), SIZES.items(), ids=[f"{w}x{h}" for h, w in SIZES])
def test_sizes_have_the_shape_and_about_the_usual_area(given: tuple[int, int], made: tuple[int, int]) -> None:
    assert fitting_size(*given, USUAL, 8) == made
    assert made[0] % 8 == made[1] % 8 == 0 and 2 / 3 <= made[0] * made[1] / 64**2 <= 3 / 2


@pytest.mark.parametrize(("side", "multiple"), [(64, 8), (512, 8), (512, 64), (1024, 64)])
def test_little_is_cropped_up_to_the_longest_shape(side: int, multiple: int) -> None:
    for ratio in np.geomspace(1, LONGEST, 40):
        size = fitting_size(1000, round(1000 * ratio), (side, side), multiple)
        assert cropped_share(1000, round(1000 * ratio), size) <= 0.06
        assert fitting_size(round(1000 * ratio), 1000, (side, side), multiple) == size[::-1]


def test_a_size_that_was_chosen_is_chosen_again() -> None:
    """Frames are brought to it while they are read, and by what works on them then."""
    for height in range(5, 300, 7):
        for width in range(5, 300, 11):
            size = fitting_size(height, width, USUAL, 8)
            assert fitting_size(*size, USUAL, 8) == size


def test_one_size_alone_none_at_all_and_sizes_that_are_no_squares() -> None:
    assert fitting_size(720, 1280, (256, 256), None) == (256, 256)
    assert fitting_size(37, 53, None, None) == (37, 53)
    assert fitting_size(37, 53, None, 8) in ((40, 56), (32, 48))
    assert fitting_size(480, 832, (480, 832), 16) == (480, 832)
    assert cropped_share(720, 1280, (48, 88)) == pytest.approx(1 - 1280 / 720 * 48 / 88)
    assert cropped_share(100, 100, (64, 64)) == 0


@pytest.mark.parametrize("side", [10, 16, 32, 33, 48])
def test_squares_are_to_the_bit_what_they_were(side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    made = video_frames(Video(pixels, 8.0), (16, 16))
    for number, frame in enumerate(pixels):
        before = torch.from_numpy(np.array(fit_square(Image.fromarray(frame), 16, "pad"))).permute(2, 0, 1)
        assert torch.equal(made[0, :, number], before / 127.5 - 1)
        assert torch.equal(picture_frames(frame, (16, 16))[0, :, 0], before / 127.5 - 1)


def test_the_centre_is_kept_and_nothing_is_squeezed() -> None:
    pixels = np.zeros((90, 160, 3), np.uint8)
    pixels[40:50, 70:90] = 255
    made = picture_frames(pixels, (48, 88))[0, 0, 0] > 0
    rows, columns = made.any(1).nonzero()[:, 0], made.any(0).nonzero()[:, 0]
    assert int(rows[0] + rows[-1]) == 47 and int(columns[0] + columns[-1]) == 87
    assert len(columns) / len(rows) == pytest.approx(2, rel=0.15)


WIDE = Video(np.random.default_rng(0).integers(0, 256, (4, 9, 16, 3), dtype=np.uint8), 8.0)
OPTIONS: dict[str, Any] = {"num_inference_steps": 2, "output_type": "pt"}
ALONE = {
    "extend": lambda cascade, video, more: extend_video(cascade, video, 0.75, 1.0, **more),
    "infill": lambda cascade, video, more: infill_video(cascade, video, torch.arange(4) != 2, 1.0, **more),
    "interpolate": lambda cascade, video, more: raise_frame_rate(cascade, video, 2, 1.0, **more),
    "upscale": lambda cascade, video, more: enlarge_video(cascade, video, 1.0, **more),
    "vary": lambda cascade, video, more: cascade.vary(video, 4, 8, **more),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("make", ALONE.values(), ids=list(ALONE))
def test_the_decoder_draws_the_shape_of_the_video(make: Any, turned: bool) -> None:
    video = Video(np.ascontiguousarray(WIDE.frames.swapaxes(1, 2)), 8.0) if turned else WIDE
    made = make(tiny_cascade(), video, OPTIONS)
    assert made.frames.shape[-2:] == ((24, 16) if turned else (16, 24))
    assert tiny_cascade().frame_size() == 16


def test_known_frames_of_a_wide_video_stay_bit_for_bit() -> None:
    video = Video(np.random.default_rng(1).integers(0, 256, (4, 16, 24, 3), dtype=np.uint8), 8.0)
    made = infill_video(tiny_cascade(), video, torch.arange(4) != 2, 1.0, **OPTIONS).frames
    assert isinstance(made, torch.Tensor)
    back = (made[0] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(back[[0, 1, 3]], video.frames[[0, 1, 3]]) and not np.array_equal(back[2], video.frames[2])


def test_a_network_of_one_size_takes_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inflate.models.decoder.DecoderStage.size_multiple", LabelDecoderStage.size_multiple)
    assert tiny_cascade().frame_shape(90, 160) == (16, 16)


def test_two_jobs_at_once_have_their_own_sizes() -> None:
    cascade = tiny_cascade()
    wide, tall = cascade.sized(16, 24), cascade.sized(24, 16)
    assert isinstance(wide, Cascade) and wide.stage("decoder") is not tall.stage("decoder")
    embeds = torch.nn.functional.normalize(torch.randn(1, 16), dim=-1)
    made = [one(None, 4, 8, image_embeds=embeds, **OPTIONS).frames for one in (wide, tall, cascade)]
    assert [tuple(torch.as_tensor(frames).shape[-2:]) for frames in made] == [(16, 24), (24, 16), (16, 16)]


def test_an_embedding_sees_the_whole_picture_with_white_beside_it() -> None:
    cascade = tiny_cascade()
    wide = torch.rand(1, 3, 1, 8, 24) * 2 - 1
    square = torch.ones(1, 3, 1, 24, 24)
    square[..., 8:16, :] = wide
    assert torch.equal(cascade.embed_images(wide), cascade.embed_images(square))
    tall = square.transpose(-1, -2)
    assert torch.equal(cascade.embed_images(wide.transpose(-1, -2)), cascade.embed_images(tall))
