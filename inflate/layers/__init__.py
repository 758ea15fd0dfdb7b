"""The layers that give an image model time. Each answers exactly its input until it has been trained."""

from inflate.layers.attention import TemporalAttention
from inflate.layers.blend import Blend, TemporalResBlock
from inflate.layers.convolution import TemporalConv
from inflate.layers.frame_rate import FrameRateEmbedding
from inflate.layers.motion_module import MotionModule
from inflate.layers.positions import POSITIONS, Position, relative_index, rotate, sinusoidal_positions
from inflate.layers.spacetime_patch import SpacetimePatchIn, SpacetimePatchOut
from inflate.layers.starting import identity_layers
from inflate.layers.temporal_block import TemporalBlock

__all__ = [
    "POSITIONS",
    "Blend",
    "FrameRateEmbedding",
    "MotionModule",
    "Position",
    "SpacetimePatchIn",
    "SpacetimePatchOut",
    "TemporalAttention",
    "TemporalBlock",
    "TemporalConv",
    "TemporalResBlock",
    "identity_layers",
    "relative_index",
    "rotate",
    "sinusoidal_positions",
]
