"""What the file or folder at a path is, from its header and names alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdft.errors import SdftError
from sdft.models.facts import ModelFacts, inspect_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a path turned out to be."""

    path: Path
    facts: ModelFacts | None = None
    size_bytes: int = 0
    problem: str = ""


def look_at_model(path: Path) -> Found:
    """Tell what a file or folder is, from its header and names."""
    try:
        facts = inspect_model(path)
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        return Found(path=path, facts=facts, size_bytes=sum(one.stat().st_size for one in files))
    except (SdftError, OSError) as error:
        return Found(path=path, problem=str(error))
