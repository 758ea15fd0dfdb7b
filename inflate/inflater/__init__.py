"""Turning an image model into a video model: sites, schemes, attaching, detaching, and what that costs."""

from inflate.adapters import IMAGE_MODEL_CLASSES, call_image_model, random_inputs
from inflate.inflater.model import InflatedModel, LoadReport, deflate, inflate
from inflate.inflater.report import Report, SiteReport, meta_image_model, report
from inflate.inflater.sites import Site, build_temporal_layers, find_sites, temporal_layer_makers
from inflate.inflater.verify import Difference, Verification, verify
from inflate.schemes import SCHEMES, Scheme, resolve_scheme

__all__ = [
    "IMAGE_MODEL_CLASSES",
    "SCHEMES",
    "Difference",
    "InflatedModel",
    "LoadReport",
    "Report",
    "Scheme",
    "Site",
    "SiteReport",
    "Verification",
    "build_temporal_layers",
    "call_image_model",
    "deflate",
    "find_sites",
    "inflate",
    "meta_image_model",
    "random_inputs",
    "report",
    "resolve_scheme",
    "temporal_layer_makers",
    "verify",
]
