"""The layers that give an image model time. Each answers exactly its input until it has been trained."""

from inflate.layers.attention import TemporalAttention
from inflate.layers.convolution import TemporalConv
from inflate.layers.frame_rate import FrameRateEmbedding
from inflate.layers.positions import POSITIONS, Position, relative_index, rotate, sinusoidal_positions

__all__ = [
    "POSITIONS",
    "FrameRateEmbedding",
    "Position",
    "TemporalAttention",
    "TemporalConv",
    "relative_index",
    "rotate",
    "sinusoidal_positions",
]
