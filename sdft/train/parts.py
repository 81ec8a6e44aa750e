"""Which weights are trained, and how fast: by block, or by a pattern of names.

In: the names of all weights and what was asked for them. Out: a learning rate for each name.
No torch here.

Blocks carry the names that merging tools use: TIME, IN00 to IN11, M00 to M02, OUT00 to OUT11, END.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sdft.errors import ConfigError, Problem, nearest

UNET = "unet."
TEXT_ENCODER = "text_encoder."
"""What stands in front of a weight's name in patterns."""

BLOCKS = (
    "TIME",
    *(f"IN{number:02}" for number in range(12)),
    *(f"M{number:02}" for number in range(3)),
    *(f"OUT{number:02}" for number in range(12)),
    "END",
)
"""The U-Net's blocks in the order of `block_lr`. Source: the original layout's input_blocks,
middle_block and output_blocks; sd-scripts orders SDXL's 23 blocks in the same way."""

_IN_BLOCK = re.compile(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.")
_OUT_BLOCK = re.compile(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.")
_MIDDLE = {"resnets.0": "M00", "attentions.0": "M01", "resnets.1": "M02"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateWishes:
    """What was asked for; where several wishes meet one weight, the first of these decides."""

    freeze: tuple[str, ...] = ()
    """Patterns or blocks that keep their weights."""
    by_name: tuple[tuple[str, float], ...] = ()
    """Patterns or blocks with their rates; of several that match, the last decides."""
    by_block: tuple[float, ...] = ()
    """One rate for each of `BLOCKS`, or none."""

    @property
    def any(self) -> bool:
        return bool(self.freeze or self.by_name or self.by_block)


def block_of(unet_name: str) -> str:
    """Return the block that a weight of the U-Net, named as diffusers does, belongs to."""
    if unet_name.startswith("time_embedding."):
        return "TIME"
    if unet_name.startswith("conv_in."):
        return "IN00"
    if match := _IN_BLOCK.match(unet_name):
        level, kind, number = int(match[1]), match[2], int(match[3])
        return f"IN{3 * (level + 1) if kind == 'downsamplers' else 3 * level + number + 1:02}"
    if match := _OUT_BLOCK.match(unet_name):
        level, kind, number = int(match[1]), match[2], int(match[3])
        return f"OUT{3 * level + (2 if kind == 'upsamplers' else number):02}"
    if unet_name.startswith("mid_block."):
        return _MIDDLE[".".join(unet_name.split(".")[1:3])]
    assert unet_name.startswith(("conv_norm_out.", "conv_out.")), unet_name
    return "END"


def rates_of(
    names: Sequence[str], *, base_rates: Mapping[str, float], wishes: RateWishes
) -> dict[str, float]:
    """Return each weight's learning rate; 0 for those that are not trained.

    `names` begin with `unet.` or `text_encoder.`; `base_rates` are by these beginnings.

    Raises: ConfigError naming every pattern that fits no weight, or where nothing is trained.
    """
    _require_matches(names, wishes)
    rates = {}
    for name in names:
        part = UNET if name.startswith(UNET) else TEXT_ENCODER
        block = block_of(name.removeprefix(UNET)) if part == UNET else ""
        rate = base_rates[part]
        if wishes.by_block and block:
            rate = wishes.by_block[BLOCKS.index(block)]
        for pattern, wished in wishes.by_name:
            if _fits(pattern, name, block):
                rate = wished
        if any(_fits(pattern, name, block) for pattern in wishes.freeze):
            rate = 0.0
        rates[name] = rate
    if wishes.any and not any(rates.values()):
        raise ConfigError(
            what="nothing is trained: all weights are frozen, or their learning rates are 0",
            where="freeze, lr_by_name, block_lr",
        )
    return rates


def _fits(pattern: str, name: str, block: str) -> bool:
    return pattern.upper() == block or fnmatchcase(name, pattern)


def _require_matches(names: Sequence[str], wishes: RateWishes) -> None:
    blocks = {block_of(name.removeprefix(UNET)) for name in names if name.startswith(UNET)}
    asked = [("freeze", pattern) for pattern in wishes.freeze]
    asked += [("lr_by_name", pattern) for pattern, _ in wishes.by_name]
    problems = [
        Problem(
            f'"{pattern}" fits no weight that is trained',
            where,
            nearest(pattern, [*blocks, *_beginnings(names)])
            or "write a block such as IN04, or a pattern such as unet.*.attn2.*",
        )
        for where, pattern in asked
        if not any(_fits(pattern, name, "") for name in names) and pattern.upper() not in blocks
    ]
    if problems:
        raise ConfigError(problems=problems)


def _beginnings(names: Iterable[str]) -> set[str]:
    """Return patterns that people are likely to mean."""
    return {".".join(name.split(".")[:depth]) + ".*" for name in names for depth in (1, 2, 3)}
