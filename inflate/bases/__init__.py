"""What people bring: which parts a checkpoint has, what its network is told, and its autoencoder."""

from inflate.bases.autoencoder import Autoencoder
from inflate.bases.base import Base, open_base
from inflate.bases.conditioner import Conditioner, Encoding, drop, joined
from inflate.bases.families import FAMILIES
from inflate.bases.prediction import predict, predict_channels

__all__ = [
    "FAMILIES",
    "Autoencoder",
    "Base",
    "Conditioner",
    "Encoding",
    "drop",
    "joined",
    "open_base",
    "predict",
    "predict_channels",
]
