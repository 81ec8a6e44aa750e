"""Finds out what kind of captioner a folder holds, and opens it. Imports no torch by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdft.errors import DataError, UserError
from sdft.files import read_text
from sdft.labelers.records import Labeler
from sdft.registry import Registry

CAPTIONERS = Registry(
    "captioner",
    {
        "blip": "sdft.labelers.blip:open_blip",
        "git": "sdft.labelers.git:open_git",
        "general": "sdft.labelers.vision_language:open_vision_language",
    },
)
"""Each opens (folder, CaptionChoice, device) and returns (Labeler, note about the device)."""

DEFAULT_MODELS = {
    "blip": "Salesforce/blip-image-captioning-large",
    "git": "microsoft/git-large-textcaps",
}

HUB_FILES = (
    "*.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.tiktoken",
)
"""What is downloaded of a repository; weights of other frameworks stay where they are."""


def open_captioner(
    folder: Path, choice: Any, *, kind: str = "auto", device: str = "auto"
) -> tuple[Labeler, str]:
    """Open a transformers folder with a CaptionChoice.

    Raises: DataError for a folder that is none; UnknownName for a kind that no table knows.
    """
    name = kind_of(folder) if kind == "auto" else CAPTIONERS.canonical(kind)
    labeler, note = CAPTIONERS.get(name)(folder, choice, device)
    return labeler, note


def kind_of(folder: Path) -> str:
    """Return the row of CAPTIONERS that a folder's `config.json` asks for.

    Raises: DataError, UserError.
    """
    if folder.is_file():
        raise UserError(
            what="captioners are transformers folders, not single files",
            where=str(folder),
            fix="name the folder that holds config.json, or a hub ID such as "
            + DEFAULT_MODELS["blip"],
        )
    config = folder / "config.json"
    if not config.is_file():
        raise DataError(
            what="no captioner in this folder: config.json is missing",
            where=str(folder),
            fix="name the folder that holds config.json, the weights and the tokenizer's files",
        )
    try:
        kind = json.loads(read_text(config)).get("model_type", "")
    except (ValueError, AttributeError) as error:
        raise DataError(what=f"not a model's config.json: {error}", where=str(config)) from error
    return kind if kind in ("blip", "git") else "general"
