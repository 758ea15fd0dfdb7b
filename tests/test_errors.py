"""Articles in messages."""

import re
from pathlib import Path

import pytest

from inflate.errors import a

ROOT = Path(__file__).parent.parent
# `a {name}` where the name may begin with a vowel; what the braces may hold that never does
_BARE = re.compile(r"\b[Aa] \{(?!len)[^}]*(?:class|__name__|pipeline|layout|\bname\b|kind\b)[^}]*\}")


@pytest.mark.parametrize(
    "said",
    """an AutoencoderKL, a UNet2DModel, a UniPCMultistepScheduler, an SD3Transformer2DModel, an LCMScheduler,
    a DiTTransformer2DModel, a FluxTransformer2DModel, an EulerDiscreteScheduler, an InflatedModel, a VQModel,
    a T5EncoderModel, an UnCLIPPipeline, an animatediff, a hotshot""".split(","),
)
def test_a_name_has_the_article_that_it_is_spoken_with(said: str) -> None:
    assert a(said.split()[1]) == said.strip()


def test_no_message_puts_an_article_before_a_name_of_any_beginning() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for package in ("inflate", "interp", "superres", "emoji_family")
        for path in sorted((ROOT / package).rglob("*.py"))
        for match in _BARE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found
