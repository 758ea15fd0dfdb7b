"""Captions of emoji: Unicode short names and keywords, looked up by code-point name however the name is spelt."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from inflate.data.split import SKIN_TONES, VARIATION_SELECTOR
from inflate.errors import InputError

_TAG_END = "e007f"


@dataclass(frozen=True)
class Caption:
    """``text`` is the Unicode short name ("party popper"), ``keywords`` what else people call it ("tada", …)."""

    text: str
    keywords: tuple[str, ...] = ()


def caption_key(name: str) -> str:
    """The spelling under which a name is looked up.

    Lower case, no variation selector, no leading zeros, tag sequences joined by ``-`` and without their end: so
    ``00AE``, ``ae-fe0f`` and ``ae`` are one thing, and so are the two spellings of the flag of Scotland.
    """
    points = name.lower().replace("_", "-").split("-")
    return "-".join(p.lstrip("0") for p in points if p not in (VARIATION_SELECTOR, _TAG_END))


def read_captions(data_json: bytes | str) -> dict[str, Caption]:
    """Captions by ``caption_key`` from the text of ``emojibase-data``'s ``en/data.json``.

    Variants with a skin tone have their own short name and the keywords of the thing. Raises ``InputError`` if the text
    is something else.
    """
    table: dict[str, Caption] = {}
    try:
        for row in json.loads(data_json):
            keywords = tuple(str(tag) for tag in row.get("tags", ()))
            for form in (row, *row.get("skins", ())):
                table[caption_key(form["hexcode"])] = Caption(str(form["label"]), keywords)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError("en/data.json of emojibase-data is not a list of emoji; pack the package again") from error
    return table


def find_caption(name: str, table: Mapping[str, Caption]) -> Caption | None:
    """The caption of a code-point name, or None; a skin tone the table does not know falls back to the thing itself."""
    key = caption_key(name)
    bare = "-".join(p for p in key.split("-") if p not in SKIN_TONES)
    return table.get(key) or table.get(bare)
