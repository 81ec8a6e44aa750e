"""Where a setting was set, for messages."""

from __future__ import annotations

from collections.abc import Mapping

Origins = Mapping[str, str]
"""Setting name to `config.toml:3`, `--learning_rate` or `default`."""


def place(origins: Origins, *names: str) -> str:
    """Return where the first of the settings that was set stands, or the first one's name."""
    for name in names:
        if origins.get(name, "default") != "default":
            return origins[name]
    return names[0].rpartition(".")[2]
