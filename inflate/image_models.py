"""The classes of diffusers' image models that can be inflated, by name: known before diffusers is imported."""

IMAGE_MODELS = (
    "UNet2DConditionModel",
    "UNet2DModel",
    "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "SanaTransformer2DModel",
    "QwenImageTransformer2DModel",
    "Lumina2Transformer2DModel",
    "ZImageTransformer2DModel",
    "Flux2Transformer2DModel",
    "AuraFlowTransformer2DModel",
    "HunyuanDiT2DModel",
    "HiDreamImageTransformer2DModel",
)
"""In the order of the table of adapters (``inflate/adapters/table.py``)."""
