"""Which emoji belong to the test split: decided by the name alone, so that no file can end up on both sides."""

import hashlib

SKIN_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})
VARIATION_SELECTOR = "fe0f"


def base_name(name: str) -> str:
    """The code-point name without skin tones and variation selector: ``1f44b-1f3fd`` becomes ``1f44b``.

    A bare skin-tone swatch (``1f3fb``) is a thing of its own and would vanish; it becomes the empty string, as in the
    published split rule, so that all five lie on one side.
    """
    return "-".join(p for p in name.lower().split("-") if p not in SKIN_TONES and p != VARIATION_SELECTOR)


def has_skin_tone(name: str) -> bool:
    """True when a code-point name such as ``1f44b-1f3fd`` contains one of the five skin-tone modifiers."""
    return any(part in SKIN_TONES for part in name.lower().split("-"))


def is_test_name(name: str) -> bool:
    """True when everything called ``name`` (a code-point name as in the packages) belongs to the test split.

    The rule: ``int(sha256(base_name).hexdigest(), 16) % 10 == 0``. About one in ten; never trained on by any model.
    """
    return int(hashlib.sha256(base_name(name).encode()).hexdigest(), 16) % 10 == 0
