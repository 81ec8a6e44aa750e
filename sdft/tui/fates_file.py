"""Some images' fates out of a `fates.jsonl` that may have a million."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_some(
    path: Path,
    *,
    bucket: tuple[int, int] | None,
    most: int,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Return the first fates of one bucket, or, with none, of the images that are not used."""
    wanted = list(bucket) if bucket is not None else None
    found: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if is_cancelled() or len(found) >= most:
                break
            fate = json.loads(line)
            is_wanted = fate["bucket"] == wanted if wanted else fate["fate"] == "rejected"
            if is_wanted:
                found.append(fate)
    return found
