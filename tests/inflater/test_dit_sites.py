"""Where temporal layers go in image transformers, at tiny and at published sizes, and which schemes are refused."""

import json
from typing import Any

import pytest
import torch

from inflate.adapters import adapter_of
from inflate.adapters.transformer import Transformer
from inflate.errors import InputError
from inflate.inflater import (
    IMAGE_MODEL_CLASSES,
    SCHEMES,
    Scheme,
    deflate,
    find_sites,
    inflate,
    meta_image_model,
    report,
)
from tests.inflater.tiny_models import as_video, build, perturb
from tests.inflater.transformer_calls import (
    CLASSES,
    FRAMES,
    SIZE,
    TRUE_CONFIGS,
    inputs_of,
)

SITES = {
    ("dit", "latte"): {"transformer_blocks.0", "transformer_blocks.1"},
    ("sd35", "latte"): {"transformer_blocks.0", "transformer_blocks.1"},
    ("flux-dev", "latte"): {"transformer_blocks.0", "single_transformer_blocks.0", "single_transformer_blocks.1"},
    ("dit", "spacetime-dit"): {
        *("pos_embed", "proj_out_2", "transformer_blocks.0.attn1", "transformer_blocks.1.attn1"),
    },
    ("pixart-alpha", "spacetime-dit"): {
        *("pos_embed", "proj_out", "transformer_blocks.0.attn1", "transformer_blocks.1.attn1"),
    },
    ("sd35", "spacetime-dit"): {
        *("pos_embed", "proj_out", "transformer_blocks.0.attn", "transformer_blocks.0.attn2"),
        "transformer_blocks.1.attn",
    },
    ("flux-dev", "spacetime-dit"): {
        *("x_embedder", "proj_out", "transformer_blocks.0.attn"),
        *("single_transformer_blocks.0.attn", "single_transformer_blocks.1.attn"),
    },
    ("dit", "lean"): {
        *("transformer_blocks.0", "transformer_blocks.1"),
        *("transformer_blocks.0.norm1.emb", "transformer_blocks.1.norm1.emb"),
    },
    ("pixart-alpha", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "adaln_single.emb"},
    ("sd35", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "time_text_embed"},
    ("sana", "sana-video"): {"transformer_blocks.0.ff.conv_depth", "transformer_blocks.1.ff.conv_depth"},
    ("sana", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "time_embed.emb"},
    ("sana-sprint", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "time_embed.timestep_embedder"},
    ("qwen-image", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "time_text_embed"},
    ("lumina2", "lean"): {"noise_refiner.0", "layers.0", "layers.1", "time_caption_embed.timestep_embedder"},
    ("z-image", "spacetime-dit"): {
        *("all_x_embedder.2-1", "all_final_layer.2-1.linear"),
        *("noise_refiner.0.attention", "layers.0.attention", "layers.1.attention"),
    },
    ("flux2-dev", "lean"): {
        *("transformer_blocks.0", "single_transformer_blocks.0", "single_transformer_blocks.1"),
        "time_guidance_embed",
    },
    ("aura-flow", "lean"): {
        *("joint_transformer_blocks.0", "single_transformer_blocks.0", "single_transformer_blocks.1"),
        "time_step_proj",
    },
    ("hunyuan-dit", "lean"): {*(f"blocks.{number}" for number in range(4)), "time_extra_emb"},
    ("hidream", "spacetime-dit"): {
        *("x_embedder", "final_layer.linear", "double_stream_blocks.0.block.attn1"),
        *("single_stream_blocks.0.block.attn1", "single_stream_blocks.1.block.attn1"),
    },
}


@pytest.mark.parametrize(("name", "scheme"), SITES)
def test_where_temporal_layers_go(name: str, scheme: str) -> None:
    assert {site.name for site in find_sites(build(name), scheme)} == SITES[name, scheme]


@torch.no_grad()
def test_the_frame_rate_reaches_transformers_with_one_layer_for_all_blocks() -> None:
    for name in CLASSES:
        image_model = build(name)
        video_model = inflate(image_model, "lean", FRAMES)
        assert sum(key == "time_embedding" for key in video_model.temporal) == 1
        what = report(image_model, "lean", FRAMES, (SIZE, SIZE))
        assert what.new_parameters == sum(parameter.numel() for parameter in video_model.temporal_parameters())
        perturb(video_model)
        inputs = inputs_of(image_model)
        sample, timestep = as_video(inputs.pop("sample"), FRAMES), inputs.pop("timestep")
        slow, fast, none = (video_model(sample, timestep, fps=fps, **inputs).sample for fps in (2, 24, None))
        assert not torch.allclose(slow, fast, atol=1e-3) and not torch.allclose(slow, none, atol=1e-3)


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("make-a-video", "it puts temporal convolutions after spatial ones, and a transformer has none"),
        ("imagen-video-sr", "it puts temporal convolutions after spatial ones, and a transformer has none"),
        ("animatediff-v3", "motion modules go between the layers of a UNet's blocks"),
        ("video-ldm", "temporal residual blocks go after those of a UNet"),
        (SCHEMES["vdm"].changed(name="mine", extra_in_channels=2), "extra input channels go beside the first conv"),
    ],
)
def test_schemes_of_unets_are_refused_with_another_to_choose(scheme: str | Scheme, reason: str) -> None:
    for name in ("dit", "flux-schnell"):
        with pytest.raises(InputError, match=f"finds no place in this .*: {reason}.*; choose 'latte', 'lean'"):
            inflate(build(name), scheme)


def test_what_transformers_cannot_do_is_said_in_one_sentence() -> None:
    dit = inflate(build("dit"), "latte", FRAMES)
    with pytest.raises(InputError, match="cannot do without the argument 'class_labels'"):
        dit(torch.zeros(1, 4, FRAMES, 8, 8), 5)
    labels = torch.zeros(1, dtype=torch.long)
    with pytest.raises(InputError, match="takes square pictures only, got 8 x 12"):
        dit(torch.zeros(1, 4, FRAMES, 8, 12), 5, class_labels=labels)
    with pytest.raises(InputError, match="needs a height and a width divisible by 2, got 7 x 7"):
        dit(torch.zeros(1, 4, FRAMES, 7, 7), 5, class_labels=labels)
    with pytest.raises(InputError, match="sample has 3 channels; this model takes 4"):
        dit(torch.zeros(1, 3, FRAMES, 8, 8), 5, class_labels=labels)
    with pytest.raises(InputError, match="inflated already"):
        inflate(dit.image_model, "spacetime-dit")
    with pytest.raises(InputError, match="have sinusoidal positions or none; set position to one of them"):
        inflate(build("dit"), SCHEMES["spacetime-dit"].changed(position="rotary"))

    pixart = inflate(build("pixart-alpha"), "latte", FRAMES)
    with pytest.raises(InputError, match="cannot do without the argument 'added_cond_kwargs'"):
        pixart(torch.zeros(1, 4, FRAMES, 8, 8), 5, encoder_hidden_states=torch.zeros(1, 7, 12))

    text = {"encoder_hidden_states": torch.zeros(1, 7, 12), "pooled_projections": torch.zeros(1, 10)}
    sd3 = inflate(build("sd3"), "latte", FRAMES)
    with pytest.raises(InputError, match="has positions for 12 x 12 at most, got 14 x 8"):
        sd3(torch.zeros(1, 16, FRAMES, 14, 8), 5, **text)
    flux = inflate(build("flux-dev"), "latte", FRAMES)
    assert flux.in_channels == 16
    with pytest.raises(InputError, match=r"needs guidance: pass guidance=3\.5"):
        flux(torch.zeros(1, 16, FRAMES, 8, 8), 0.5, **text)
    with pytest.raises(InputError, match="takes no guidance: leave it out"):
        inflate(build("flux-schnell"), "latte")(torch.zeros(1, 16, 2, 8, 8), 0.5, guidance=3.5, **text)
    with pytest.raises(InputError, match="takes no argument 'img_ids'"):
        flux(torch.zeros(1, 16, FRAMES, 8, 8), 0.5, img_ids=torch.zeros(16, 3), **text)


# Published sizes; where only the billions are, as of HiDream's 17B, AuraFlow's 6.8B and FLUX.2's 32B and 4B, those that
# diffusers makes of the published config. SD3.5's configs are SD3's with what its documentation in diffusers names:
# dual attention in the first 13 blocks, normed queries and keys, more positions (medium); 38 blocks of 38 heads
# (large).
SIZES: list[tuple[str, dict[str, Any], int]] = [
    ("dit_xl_2_256", {}, 749_826_464),
    ("pixart_alpha_xl_2_512", {}, 610_856_096),
    ("pixart_alpha_xl_2_512", {"sample_size": 128}, 611_349_152),
    ("pixart_sigma_xl_2_512", {}, 610_856_096),
    ("sd3_medium_transformer", {}, 2_028_328_000),
    (
        "sd3_medium_transformer",
        {"dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm", "pos_embed_max_size": 384},
        2_243_171_520,
    ),
    (
        "sd3_medium_transformer",
        {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"},
        8_056_627_520,
    ),
    ("flux1_dev_transformer", {}, 11_901_408_320),
    ("flux1_dev_transformer", {"guidance_embeds": False}, 11_891_178_560),
    ("sana_1600m_transformer", {}, 1_604_462_752),
    ("sana_600m_transformer", {}, 591_747_872),
    ("qwen_image_transformer", {}, 20_430_401_088),
    ("lumina2_transformer", {}, 2_609_769_152),
    ("z_image_transformer", {}, 6_154_908_736),
    ("flux2_dev_transformer", {}, 32_223_281_152),
    ("flux2_klein_4b_transformer", {}, 3_875_544_576),
    ("aura_flow_transformer", {}, 6_833_439_744),
    ("hunyuan_dit_1_2_transformer", {}, 1_499_952_032),
    ("hunyuan_dit_1_2_transformer", {"use_style_cond_and_image_meta_size": True}, 1_516_534_048),
    ("hidream_i1_transformer", {}, 17_105_733_184),
]


@pytest.mark.parametrize(("config_name", "changes", "published"), SIZES)
def test_true_sizes_need_no_memory(config_name: str, changes: dict[str, Any], published: int) -> None:
    config = {**json.loads((TRUE_CONFIGS / f"{config_name}.json").read_text()), **changes}
    image_model = meta_image_model(IMAGE_MODEL_CLASSES[config["_class_name"]], config)
    adapter = adapter_of(image_model)
    assert isinstance(adapter, Transformer)
    heads, head_dim = adapter.num_heads(image_model.config)
    width, condition_dim = heads * head_dim, adapter.condition_dim(image_model.config)
    # Per block: attention 4 D^2, MLP 8 D^2 and, but where blocks share it, modulation 6 C D.
    expected = sum(
        (12 * width**2 + (0 if blocks.shared_condition else 6 * condition_dim * width))
        * len(list(image_model.get_submodule(blocks.name).children()))
        for blocks in adapter.blocks
    )
    assert sum(parameter.numel() for parameter in image_model.parameters()) == published
    with torch.device("meta"):
        latte = inflate(image_model, "latte", 16)
        assert sum(parameter.numel() for parameter in latte.temporal_parameters()) == pytest.approx(expected, rel=0.01)
        spacetime = inflate(deflate(latte), "spacetime-dit", 16)
    assert 0 < sum(parameter.numel() for parameter in spacetime.temporal_parameters()) < 0.005 * published


def test_a_report_at_true_size() -> None:
    config = json.loads((TRUE_CONFIGS / "dit_xl_2_256.json").read_text())
    image_model = meta_image_model(IMAGE_MODEL_CLASSES[config["_class_name"]], config)
    what, spacetime = (report(image_model, scheme, 16) for scheme in ("latte", "spacetime-dit"))
    assert what.image_parameters == 749_826_464 and (what.height, what.width) == (32, 32)
    assert what.count("temporal_block") == 28 and what.flop_ratio is not None and 0.9 < what.flop_ratio < 1
    # half the tokens, which see eight times as many as they did in a frame: 256 tokens are few beside 1152 channels
    assert spacetime.flop_ratio is not None and -0.5 < spacetime.flop_ratio < 0
    assert spacetime.count("self_attention") == 28
