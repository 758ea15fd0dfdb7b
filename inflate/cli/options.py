"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

DTYPES = ("float32", "float16", "bfloat16")

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: CUDA if there is one, else cpu.")]
Dtype = Annotated[str, typer.Option(help=f"Number format of the networks: {', '.join(DTYPES)}.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing while working.")]
AsJson = Annotated[bool, typer.Option("--json", help="Report on standard output as JSON.")]
Seed = Annotated[
    int, typer.Option(help="The same seed, prompt and settings give the same video.", min=0, max=2**63 - 1)
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
Steps = Annotated[str, typer.Option(help="Sampling steps of every stage, or by stage: prior=10,decoder=15.")]
GuidanceScale = Annotated[str, typer.Option(help="Guidance (1 is none), for all stages or by stage.")]
GuidanceRescale = Annotated[
    str, typer.Option(help="Share, 0 to 1, by which guidance's contrast is taken back; the decoder's, or by stage.")
]
GuidanceOscillate = Annotated[
    str, typer.Option(help="Low guidance, in turns with --guidance-scale after a quarter of the steps; likewise.")
]
GuidanceInterval = Annotated[
    str,
    typer.Option(help="Shares of the steps with guidance, such as 0.2-0.8; others take half the time; likewise."),
]
Reuse = Annotated[
    str,
    typer.Option(help="A UNet's deep features are computed at every so many steps, which is faster; likewise."),
]
Threshold = Annotated[
    str, typer.Option(help="Quantile, such as 0.995, of dynamic thresholding; likewise, for decoders of pixels only.")
]
Prompts = Annotated[
    list[str] | None,
    typer.Argument(
        help='What to show: one or several, such as "party popper"; a class\'s name or number for a model of classes, '
        "nothing for one that is told nothing."
    ),
]
Side = Annotated[
    int | None, typer.Option(help="Pixels; by default the size that the model was made or trained for.", min=8)
]
FrameSkip = Annotated[
    int, typer.Option(help="Frame interpolation multiplies the frame rate by this; 1 leaves it out.", min=1)
]
Until = Annotated[str | None, typer.Option(help="Last stage to run, such as decoder.")]
Model = Annotated[str, typer.Option(help="A cascade's folder, or a family that ships with inflate.")]
Variant = Annotated[
    str | None, typer.Option("--variant", help="Which of the folder's weights, such as fp16. Default: the plain ones.")
]
LongFrames = Annotated[
    int | None,
    typer.Option(
        help="Frames that the decoder makes per video; by default those it was trained for (16 in bundled:emoji). More "
        "are made in overlapping windows, and the chain works by chunks, in memory that does not grow with length "
        "(mp4; gif and webp hold all frames).",
        min=1,
    ),
]
PromptAt = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt-at", help='SECONDS=TEXT: what a long video shows from then on, such as --prompt-at 8="a moon".'
    ),
]
Transition = Annotated[float, typer.Option(help="Seconds in which one prompt turns into the next.", min=0)]

Scale = Annotated[int, typer.Option(help="Enlarge the pictures by this whole number, for viewing.", min=1, max=64)]

InitImage = Annotated[
    Path | None,
    typer.Option(help="A picture that every frame begins as; its centre is cut to the shape of the frames."),
]
Strength = Annotated[
    float | None,
    typer.Option(help="How far frames go from --init-image, above 0 to 1: the share of steps left; default 0.8."),
]
Loras = Annotated[
    list[str] | None,
    typer.Option("--lora", help="FILE or FILE:WEIGHT; a LoRA for the decoder or its motion module; may be repeated."),
]
