"""Schemes: which temporal layer goes where in an image model, and their table."""

from inflate.schemes.placed import Placed, placed
from inflate.schemes.scheme import Numbers, Scheme, SharedNoise
from inflate.schemes.table import SCHEMES, resolve_scheme

__all__ = ["SCHEMES", "Numbers", "Placed", "Scheme", "SharedNoise", "placed", "resolve_scheme"]
