"""The names of motion-module weights in each format, and in ours: strings only.

Ours are those of diffusers' modules behind a place such as ``down_blocks-0-motion_modules-1.``, but for the positions:
AnimateDiff's files hold one table per attention, and so do we, so that nothing is lost where two differ. diffusers
holds one per block.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# What trainers and compilers put before a network's names.
_WRAPPED = r"(?:(?:module|model|unet|_orig_mod)\.)*"
_BLOCK = r"(?P<block>down_blocks\.\d+|up_blocks\.\d+|mid_block)"

PLACE = re.compile(_BLOCK + r"\.")  # where a network's own names begin


@dataclass(frozen=True)
class Layout:
    """One format. ``pattern`` splits a key into block, number and rest; ``holder`` and ``inside`` put it together."""

    name: str
    pattern: re.Pattern[str]
    holder: str  # what numbers the modules of a block
    inside: str  # what comes between number and rest
    positions: str  # of one attention, or of a block where `shared_positions`
    shared_positions: bool  # one table of positions per block
    renamed: tuple[tuple[str, str], ...]  # theirs -> ours, as parts of the rest

    def to_ours(self, key: str) -> tuple[str, ...]:
        """Our names for a key: none where it is no motion module's, two for positions that two attentions share."""
        found = self.pattern.match(key)
        if found is None:
            return ()
        place = f"{found['block'].replace('.', '-')}-motion_modules-{found['number']}."
        rest = found["rest"]
        if self.shared_positions and rest.endswith(self.positions):
            block = rest.removesuffix(self.positions)
            return tuple(f"{place}{block}{attention}.pe" for attention in ("attn1", "attn2"))
        if not self.shared_positions and rest.endswith(self.positions):
            rest = rest.removesuffix(self.positions) + ".pe"
        for theirs, ours in self.renamed:
            rest = rest.replace(theirs, ours)
        return (place + rest,)

    def from_ours(self, name: str) -> str | None:
        """Their key for our name; None for what is no motion module's."""
        found = _OURS.match(name)
        if found is None:
            return None
        block = re.sub(r"-(\d+)$", r".\1", found["block"])
        rest = found["rest"]
        if self.shared_positions:
            rest = re.sub(r"attn[12]\.pe$", self.positions, rest)
        elif rest.endswith(".pe"):
            rest = rest.removesuffix(".pe") + self.positions
        for theirs, ours in self.renamed:
            rest = rest.replace(ours, theirs)
        return f"{block}.{self.holder}.{found['number']}.{self.inside}{rest}"


_OURS = re.compile(r"^(?P<block>down_blocks-\d+|up_blocks-\d+|mid_block)-motion_modules-(?P<number>\d+)\.(?P<rest>.+)$")
_BY_ATTENTION = (
    ("attention_blocks.0", "attn1"),
    ("attention_blocks.1", "attn2"),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".ff_norm.", ".norm3."),
)
ANIMATEDIFF = Layout(
    "animatediff",
    re.compile(rf"^{_WRAPPED}{_BLOCK}\.motion_modules\.(?P<number>\d+)\.temporal_transformer\.(?P<rest>.+)$"),
    holder="motion_modules",
    inside="temporal_transformer.",
    positions=".pos_encoder.pe",
    shared_positions=False,
    renamed=_BY_ATTENTION,
)
HOTSHOT = Layout(
    "hotshot",
    re.compile(rf"^{_WRAPPED}{_BLOCK}\.temporal_attentions\.(?P<number>\d+)\.(?P<rest>.+)$"),
    holder="temporal_attentions",
    inside="",
    positions=".pos_encoder.positional_encoding",
    shared_positions=False,
    renamed=_BY_ATTENTION,
)
MOTION_ADAPTER = Layout(
    "motion-adapter",
    re.compile(rf"^{_WRAPPED}{_BLOCK}\.motion_modules\.(?P<number>\d+)\.(?!temporal_transformer\.)(?P<rest>.+)$"),
    holder="motion_modules",
    inside="",
    positions="pos_embed.pe",
    shared_positions=True,
    renamed=(),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (ANIMATEDIFF, HOTSHOT, MOTION_ADAPTER)}


def motion_keys(keys: Iterable[str]) -> tuple[Layout | None, dict[str, str], list[str]]:
    """The format of a file with these keys, its motion keys by our names, and the keys that are no motion module's."""
    keys = list(keys)
    if any("controlnet_cond_embedding" in key for key in keys):
        return None, {}, keys  # SparseCtrl, whose motion modules are of another kind
    for layout in LAYOUTS.values():
        ours = {name: key for key in keys if "lora" not in key for name in layout.to_ours(key)}
        if ours:
            used = set(ours.values())
            return layout, ours, [key for key in keys if key not in used]
    return None, {}, keys
