"""Turning an image model into a video model: sites, schemes, attaching, detaching, and what that costs."""

from inflate.inflater.model import InflatedModel, LoadReport, build_temporal_layers, deflate, inflate
from inflate.inflater.schemes import SCHEMES, Scheme, resolve_scheme
from inflate.inflater.sites import Site, find_sites

__all__ = [
    "SCHEMES",
    "InflatedModel",
    "LoadReport",
    "Scheme",
    "Site",
    "build_temporal_layers",
    "deflate",
    "find_sites",
    "inflate",
    "resolve_scheme",
]
