"""Names find their captions however they are spelt."""

import json

import pytest

from emoji_family.captions import caption_key, find_caption, read_captions
from inflate.errors import InputError

TABLE = read_captions(
    json.dumps(
        [
            {"hexcode": "1F1E6", "label": "regional indicator A"},
            {"hexcode": "00AE", "label": "registered", "tags": ["r"]},
            {"hexcode": "0023-FE0F-20E3", "label": "keycap: #", "tags": ["keycap"]},
            {"hexcode": "1F1FA-1F1F8", "label": "flag: United States", "tags": ["US", "flag"]},
            {"hexcode": "1F3F4-E0067-E0062-E0073-E0063-E0074-E007F", "label": "flag: Scotland", "tags": ["gbsct"]},
            {"hexcode": "1F441-FE0F-200D-1F5E8-FE0F", "label": "eye in speech bubble", "tags": []},
            {
                "hexcode": "1F44B",
                "label": "waving hand",
                "tags": ["hello", "bye"],
                "skins": [{"hexcode": "1F44B-1F3FD", "label": "waving hand: medium skin tone"}],
            },
        ]
    )
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1f44b", "waving hand"),
        ("1f44b-1f3fd", "waving hand: medium skin tone"),
        ("1f44b-1f3fb", "waving hand"),
        ("00ae", "registered"),
        ("ae-fe0f", "registered"),
        ("23-fe0f-20e3", "keycap: #"),
        ("0023-20e3", "keycap: #"),
        ("1f1fa-1f1f8", "flag: United States"),
        ("1f3f4-e0067_e0062_e0073_e0063_e0074", "flag: Scotland"),
        ("1f441-200d-1f5e8", "eye in speech bubble"),
    ],
)
def test_every_spelling_finds_its_caption(name: str, text: str) -> None:
    caption = find_caption(name, TABLE)
    assert caption is not None and caption.text == text


def test_skin_tones_share_the_keywords_of_the_thing() -> None:
    caption = find_caption("1f44b-1f3fd", TABLE)
    assert caption is not None and caption.keywords == ("hello", "bye")


def test_an_unknown_name_has_no_caption() -> None:
    assert find_caption("1fffff", TABLE) is None


def test_different_things_keep_different_keys() -> None:
    assert caption_key("1f468-200d-1f33e") != caption_key("1f469-200d-1f33e")
    assert caption_key("2600") == caption_key("2600-FE0F") != caption_key("26")


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[{"label": "no code"}]', "7"])
def test_something_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="emojibase-data"):
        read_captions(text)
