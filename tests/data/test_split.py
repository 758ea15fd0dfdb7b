"""The split is a function of the name alone, and holds for known names."""

import hashlib

import pytest

from inflate.data import base_name, has_skin_tone, is_test_name

TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")


@pytest.mark.parametrize("name", ["1f389", "1f44b", "1f600", "0023", "1f468-200d-1f33e", "26a7", "1f30d", "1f0cf"])
def test_the_rule_is_the_published_one(name: str) -> None:
    expected = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0
    assert is_test_name(name) is expected


def test_both_sides_occur_about_one_in_ten() -> None:
    share = sum(is_test_name(f"{0x1F300 + i:x}") for i in range(1000)) / 1000
    assert 0.07 < share < 0.13


@pytest.mark.parametrize("thing", [f"1f4{i:02x}" for i in range(40)])
def test_skin_tones_and_the_variation_selector_do_not_change_the_side(thing: str) -> None:
    side = is_test_name(thing)
    for tone in TONES:
        assert base_name(f"{thing}-{tone}") == thing
        assert is_test_name(f"{thing}-{tone}") is side
        assert is_test_name(f"{thing}-fe0f-{tone}-200d-2642-fe0f") is is_test_name(f"{thing}-200d-2642")
    assert is_test_name(f"{thing}-fe0f") is side


def test_skin_tones_are_seen() -> None:
    assert has_skin_tone("1f44b-1f3fd") and has_skin_tone("1F44B-1F3FD")
    assert not has_skin_tone("1f44b")
