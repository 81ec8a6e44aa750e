"""Looks for names that files could not have on Windows."""

from __future__ import annotations

import os
from pathlib import Path

from sdft.windows import is_file_name


def names_windows_refuses(folder: Path) -> list[str]:
    """Return the paths below a folder that could not be there on Windows."""
    return [
        os.path.join(root, name)
        for root, folders, names in os.walk(folder)
        for name in (*folders, *names)
        if not is_file_name(name) or len(name) > 255
    ]
