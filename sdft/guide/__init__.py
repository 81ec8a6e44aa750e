"""The guide to the program, as it ships: the README, and a guide in Japanese."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def guide_text(language: str) -> str:
    """Return the guide as Markdown: `ja`, or the README for any other language.

    Raises: FileNotFoundError where it was left out of an installation.
    """
    if language == "ja":
        return (_HERE / "README-ja.md").read_text(encoding="utf-8")
    # A wheel has a copy here; in a checkout, or installed editable, there is only the original.
    copied = _HERE / "README.md"
    readme = copied if copied.exists() else _HERE.parent.parent / "README.md"
    return readme.read_text(encoding="utf-8")
