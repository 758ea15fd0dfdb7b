"""The layers that give an image model time. Each answers exactly its input until it has been trained."""

from inflate.layers import quick  # noqa: F401  # ways that layers may take on a CPU
from inflate.layers.attention import TemporalAttention
from inflate.layers.beside import ExtraInput, QueryChange
from inflate.layers.blend import Blend
from inflate.layers.convolution import TemporalConv
from inflate.layers.frame_rate import FrameRateEmbedding, GuidanceEmbedding
from inflate.layers.frames import FrameCheckpoint, FrameContext, Frames, PictureTokens
from inflate.layers.layer import FrameHook, TemporalLayer
from inflate.layers.motion_module import MotionModule
from inflate.layers.place import Place, Where, plain_module
from inflate.layers.positions import POSITIONS, Position, relative_index, rotate, sinusoidal_positions
from inflate.layers.residual_block import TemporalResBlock
from inflate.layers.seen_frames import SeenFrames
from inflate.layers.spacetime_patch import SpacetimePatchIn, SpacetimePatchOut
from inflate.layers.starting import identity_layers
from inflate.layers.temporal_block import TemporalBlock

__all__ = [
    "POSITIONS",
    "Blend",
    "ExtraInput",
    "FrameCheckpoint",
    "FrameContext",
    "FrameHook",
    "FrameRateEmbedding",
    "Frames",
    "GuidanceEmbedding",
    "MotionModule",
    "PictureTokens",
    "Place",
    "Position",
    "QueryChange",
    "SeenFrames",
    "SpacetimePatchIn",
    "SpacetimePatchOut",
    "TemporalAttention",
    "TemporalBlock",
    "TemporalConv",
    "TemporalLayer",
    "TemporalResBlock",
    "Where",
    "identity_layers",
    "plain_module",
    "relative_index",
    "rotate",
    "sinusoidal_positions",
]
