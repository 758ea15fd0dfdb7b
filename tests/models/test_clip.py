import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inflate.errors import InputError
from inflate.models.clip import ClipConfig, TextImageEncoder, open_clip_merges
from tests.models.tiny_family import CLIP_CONFIG, tiny_encoder

TEXTS = ["party popper", "a", "Überraschung 日本 🎉", ""]


def test_the_vocabulary_has_the_size_the_config_says() -> None:
    for size in (600, 8192):
        config = replace(CLIP_CONFIG, vocab_size=size)
        encoder = TextImageEncoder.create(config)
        assert encoder.tokenizer.vocab_size == size
        assert encoder.tokenizer.eot_token_id == size - 1
        assert encoder.tokenizer.sot_token_id == size - 2


@pytest.mark.parametrize("text", ["party popper", "woman's hat", "überraschung 日本 🎉"])
def test_text_survives_a_small_vocabulary(text: str) -> None:
    tokenizer = tiny_encoder().tokenizer
    assert tokenizer.decode(tokenizer.encode(text)).replace(" ' s", "'s").split() == text.replace("'", " '").split()


def test_merges_are_the_first_of_open_clips_own() -> None:
    from open_clip import SimpleTokenizer

    ours = TextImageEncoder.create(replace(CLIP_CONFIG, vocab_size=49408, context_length=77)).tokenizer
    theirs = SimpleTokenizer()
    assert torch.equal(ours(TEXTS), theirs(TEXTS))
    assert open_clip_merges(2) == ["i n", "t h"]


def test_encode_text_is_open_clips_own() -> None:
    encoder = tiny_encoder()
    with torch.no_grad():
        made = encoder.encode_text(TEXTS)
        true = encoder.model.encode_text(encoder.tokenize(TEXTS), normalize=True)
    assert torch.equal(made.text_embeds, true)
    assert made.text_hidden_states.shape == (4, CLIP_CONFIG.context_length, CLIP_CONFIG.text_width)


def test_the_mask_covers_start_to_end() -> None:
    encoder = tiny_encoder()
    tokens = encoder.tokenize(TEXTS)
    mask = encoder.text_mask(tokens)
    for row, text in zip(mask, TEXTS, strict=True):
        length = min(len(encoder.tokenizer.encode(text)) + 2, CLIP_CONFIG.context_length)
        assert row.tolist() == [True] * length + [False] * (len(row) - length)


def test_encode_image_takes_any_size() -> None:
    encoder = tiny_encoder()
    pixels = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    with torch.no_grad():
        exact = encoder.encode_image(pixels)
        larger = encoder.encode_image(torch.nn.functional.interpolate(pixels, scale_factor=4, mode="bicubic"))
        true = encoder.model.encode_image((pixels + 1) / 2 * 2 - 1, normalize=True)
    torch.testing.assert_close(exact.norm(dim=-1), torch.ones(1))
    torch.testing.assert_close(exact, true, atol=1e-5, rtol=0)
    assert torch.nn.functional.cosine_similarity(exact, larger).item() > 0.98


def test_round_trip_into_other_random_weights(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    encoder.save(tmp_path)
    torch.manual_seed(99)
    other = TextImageEncoder.create(CLIP_CONFIG)
    loaded = TextImageEncoder.load(tmp_path)
    with torch.no_grad():
        assert not torch.allclose(other.encode_text(TEXTS).text_embeds, encoder.encode_text(TEXTS).text_embeds)
        assert torch.equal(loaded.encode_text(TEXTS).text_embeds, encoder.encode_text(TEXTS).text_embeds)
    assert loaded.config == CLIP_CONFIG and not loaded.training
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_half_precision_files_load_as_float32_unless_asked(tmp_path: Path) -> None:
    tiny_encoder().save(tmp_path, dtype=torch.float16)
    assert TextImageEncoder.load(tmp_path).dtype == torch.float32
    half = TextImageEncoder.load(tmp_path, dtype=torch.float16)
    with torch.no_grad():
        assert half.encode_text(["red heart"]).text_embeds.dtype == torch.float16


def test_the_config_that_ships_keeps_one_width_for_text_and_embedding() -> None:
    assert ClipConfig().num_merges == 7678
    with pytest.raises(InputError, match="text width 192 and embed_dim 256"):
        ClipConfig(text_width=192)
    with pytest.raises(InputError, match="vocab_size 100"):
        ClipConfig(vocab_size=100)


def break_config(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["model_cfg"]["vision_cfg"]["layer"] = raw["model_cfg"]["vision_cfg"].pop("layers")
    (folder / "config.json").write_text(json.dumps(raw))


def widen_config(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["model_cfg"]["vision_cfg"]["width"] = 24
    (folder / "config.json").write_text(json.dumps(raw))


def add_layer(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["model_cfg"]["text_cfg"]["layers"] = 2
    (folder / "config.json").write_text(json.dumps(raw))


def drop_merges(folder: Path) -> None:
    (folder / "bpe_merges.txt.gz").write_bytes(gzip.compress(b"#version: 0.2\ni n"))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "config.json").unlink(), "is not a CLIP folder: it has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not readable as JSON"),
        (lambda folder: (folder / "bpe_merges.txt.gz").write_bytes(b"no gzip"), "cannot be read"),
        (break_config, "unknown key 'model_cfg.vision_cfg.layer' .did you mean 'model_cfg.vision_cfg.layers'"),
        (widen_config, "has shape .* its config wants"),
        (add_layer, "does not fit its config: missing"),
        (drop_merges, "has 1 merges; the config wants 86"),
        (truncate, "cannot be read as safetensors"),
    ],
)
def test_damaged_folders_are_named_in_a_sentence(tmp_path: Path, damage, sentence: str) -> None:
    tiny_encoder().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=sentence):
        TextImageEncoder.load(tmp_path)
