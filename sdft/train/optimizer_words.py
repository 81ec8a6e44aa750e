"""Names and arguments of optimizers and schedules as people write them. Needs no torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from sdft.errors import ConfigError

STAND_INS = {
    "AdamW8bit": "AdamW",
    "PagedAdamW": "AdamW",
    "PagedAdamW8bit": "AdamW",
    "PagedAdamW32bit": "AdamW",
    "SGDNesterov8bit": "SGDNesterov",
    "Lion": "lion_pytorch.Lion",
    "Lion8bit": "lion_pytorch.Lion",
    "PagedLion8bit": "lion_pytorch.Lion",
}
"""What takes over where bitsandbytes is missing: the same update with more memory."""


def parse_arguments(texts: Sequence[str], *, where: str) -> dict[str, Any]:
    """Read `key=value` texts whose values are Python literals.

    Raises: ConfigError naming every text that cannot be read.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        key, equals, literal = text.partition("=")
        if not equals:
            raise ConfigError(
                what=f'"{text}" is not key=value', where=where, fix='write it like "key=value"'
            )
        try:
            arguments[key.strip()] = ast.literal_eval(literal.strip())
        except (ValueError, SyntaxError):
            arguments[key.strip()] = literal.strip()
    return arguments


def steps_are_relative(name: str, arguments: Mapping[str, Any]) -> bool:
    """Tell whether this is Adafactor with steps that it sizes by itself, its default."""
    if name.lower() != "adafactor":
        return False
    return bool(arguments.get("relative_step", True) or arguments.get("warmup_init", False))
