"""The option values of `sdft sample` that need a look before they are used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sdft.errors import ConfigError

_STRENGTH = re.compile(r"(?P<path>.+):(?P<number>[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?)")


def hypernetworks(texts: Sequence[str]) -> list[tuple[Path, float]]:
    """Read `FILE` and `FILE:0.8`; what follows the last colon is a strength if it is a number.

    So `C:\\x.pt` is a path, and `C:\\x.pt:0.8` one with a strength.
    Raises: ConfigError for an empty text.
    """
    return [_hypernetwork(text) for text in texts]


def _hypernetwork(text: str) -> tuple[Path, float]:
    if not text.strip():
        raise ConfigError(what="no file is named", where="--hypernetwork", fix="write FILE:0.8")
    found = _STRENGTH.fullmatch(text)
    # A file may be named like that, and a single letter is a drive.
    if found is None or len(found["path"]) == 1 or Path(text).is_file():
        return Path(text), 1.0
    return Path(found["path"]), float(found["number"])
