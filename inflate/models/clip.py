"""The CLIP of our families, by the name it has for stages; it lives with the other conditioners' encoders."""

from inflate.bases.clip import ClipConfig, EncodedText, TextImageEncoder, open_clip_merges

__all__ = ["ClipConfig", "EncodedText", "TextImageEncoder", "open_clip_merges"]
