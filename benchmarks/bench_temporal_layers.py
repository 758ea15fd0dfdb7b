"""What temporal layers cost: a video model over its floor, the image model on the same frames, interleaved in one run.

Two figures per scheme. *At start* every temporal layer is still the identity; *trained* gives every temporal weight a
random value, as after training. One row per scheme of the table; the model is a small UNet of Stable Diffusion's kind.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date

import diffusers
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

import inflate
from inflate.inflater import SCHEMES
from inflate.video import fold_frames

WARM_UP = 1


def image_model() -> UNet2DConditionModel:
    """A UNet with three resolutions, attention at two of them; random weights, always the same."""
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    return model.eval()


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, waiting for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratios(scheme: str, trained: bool, num_frames: int, repeats: int, device: torch.device) -> list[float]:
    """Time of the video model over that of the image model on the same pictures, once per interleaved pair."""
    floor = image_model().to(device)
    video_model = inflate.inflate(image_model().to(device), scheme=scheme, num_frames=num_frames)
    if trained:
        for weight in video_model.temporal_parameters():
            torch.nn.init.normal_(weight, std=0.02)
    channels = 4 + SCHEMES[scheme].extra_in_channels
    video = torch.randn(2, channels, num_frames, 16, 16, device=device)
    text = torch.randn(2, 7, 64, device=device)
    pictures, texts = fold_frames(video)[:, :4], text.repeat_interleave(num_frames, 0)
    fps = 8 if SCHEMES[scheme].fps_range else None

    def image() -> Tensor:
        return floor(pictures, 10, encoder_hidden_states=texts).sample

    def moving() -> Tensor:
        return video_model(video, 10, fps=fps, encoder_hidden_states=text).sample

    pairs = [(seconds(image), seconds(moving)) for _ in range(WARM_UP + repeats)]
    return [ours / theirs for theirs, ours in pairs[WARM_UP:]]


def main() -> None:
    """Print the table and what it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{date.today()}, Python {platform.python_version()}, torch {torch.__version__}, diffusers "
        f"{diffusers.__version__}, {device.type} ({machine}), float32, 2 videos of {options.frames} frames, "
        f"{options.repeats} pairs after {WARM_UP} to warm up"
    )
    print(
        "\n| scheme | layers | time over the image model: median | smallest | largest |",
        "| --- | --- | --- | --- | --- |",
        sep="\n",
    )
    with torch.inference_mode():
        for scheme in SCHEMES:
            for trained in (False, True):
                found = ratios(scheme, trained, options.frames, options.repeats, device)
                state = "trained" if trained else "at start"
                print(
                    f"| {scheme} | {state} | {statistics.median(found):.2f} | {min(found):.2f} | {max(found):.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
