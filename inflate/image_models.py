"""The table of image models that can be inflated: diffusers' class by name, known before diffusers is imported."""

IMAGE_MODELS = {
    "UNet2DConditionModel": "unet:ConditionedUNet",
    "UNet2DModel": "unet:PlainUNet",
    "DiTTransformer2DModel": "dit:DiT",
    "PixArtTransformer2DModel": "pixart:PixArt",
    "SD3Transformer2DModel": "sd3:SD3",
    "FluxTransformer2DModel": "flux:Flux",
    "SanaTransformer2DModel": "sana:Sana",
    "QwenImageTransformer2DModel": "qwen_image:QwenImage",
    "Lumina2Transformer2DModel": "lumina2:Lumina2",
    "ZImageTransformer2DModel": "z_image:ZImage",
    "Flux2Transformer2DModel": "flux2:Flux2",
    "AuraFlowTransformer2DModel": "aura_flow:AuraFlow",
    "HunyuanDiT2DModel": "hunyuan_dit:HunyuanDiT",
    "HiDreamImageTransformer2DModel": "hidream:HiDream",
    "ChromaTransformer2DModel": "chroma:Chroma",
}
"""Class -> where its adapter is, "module:Class" in ``inflate/adapters/``."""
