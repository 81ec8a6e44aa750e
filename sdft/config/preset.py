"""The settings that ship with the program, for a kind of card or of data set.

In: the name of one. Out: its text, or the same as a Document. A preset holds everything but the
model, the images and where the results go.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from sdft.config.document import Document, read_document

PresetName = Literal[
    "sd15-12gb", "sd15-6gb", "sd2-12gb", "sd2-8gb", "small-dataset", "large-dataset"
]

PRESETS: tuple[str, ...] = get_args(PresetName)

FOLDER = Path(__file__).parent / "presets"


def preset_text(name: str) -> str:
    """Return a preset's file, with its comments."""
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def preset_document(name: str) -> Document:
    """Return a preset as a Document whose lines are told as `preset NAME:LINE`."""
    return replace(read_document(FOLDER / f"{name}.toml", FOLDER), name=f"preset {name}")
