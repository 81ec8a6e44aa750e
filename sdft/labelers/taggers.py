"""Finds out what kind of tagger a file or folder holds, and opens it.

In: a path, or a name from TAGGERS with a path. Out: a Labeler.
"""

from __future__ import annotations

from pathlib import Path

from sdft.errors import DataError, UserError
from sdft.labelers.records import Labeler
from sdft.labelers.selection import TagChoice
from sdft.registry import Registry

TAGGERS = Registry(
    "tagger",
    {
        "wd14": "sdft.labelers.onnx_taggers:open_wd14",
        "tag_mapping": "sdft.labelers.onnx_taggers:open_tag_mapping",
        "deepdanbooru": "sdft.labelers.onnx_taggers:open_deepdanbooru",
        "deepdanbooru_torch": "sdft.labelers.danbooru_torch:open_torch_danbooru",
    },
)
"""Each opens (model file, TagChoice, device) and returns (Labeler, note about the device)."""

_TABLES = {
    "tag_mapping.json": "tag_mapping",
    "selected_tags.csv": "wd14",
    "tags.txt": "deepdanbooru",
}

TABLE_FILES = (*_TABLES, "tags-character.txt")
"""What decides beside the model which tags come out."""

_ONNX_NAMES = ("model_optimized.onnx", "model.onnx")

HUB_FILES = ("*.onnx", "*.pt", *TABLE_FILES)
"""What is downloaded of a repository. Weights of other frameworks stay where they are."""


def open_tagger(
    path: Path, choice: TagChoice, *, kind: str = "auto", device: str = "auto"
) -> tuple[Labeler, str]:
    """Open the tagger in a folder, or a model file with its table beside it.

    Returns it with a note where it runs on another device than asked.

    Raises: DataError where parts are missing or do not fit; UserError for what cannot be run here.
    """
    name = "" if kind == "auto" else TAGGERS.canonical(kind)
    model_file = find_model_file(path)
    labeler, note = TAGGERS.get(name or _kind_of(model_file))(model_file, choice, device)
    return labeler, note


def find_model_file(path: Path) -> Path:
    """Return the model file that `path` is or holds. Raises: DataError, UserError."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    onnx = [file for file in files if file.suffix == ".onnx"]
    ported = [file for file in files if file.suffix == ".pt"]
    if onnx or len(ported) == 1:
        named = [file for name in _ONNX_NAMES for file in onnx if file.name == name]
        return (named or onnx or ported)[0]
    keras = [file for file in files if file.suffix in (".h5", ".keras", ".pb")]
    if keras:
        raise UserError(
            what="a TensorFlow model; taggers run as ONNX here",
            where=str(keras[0]),
            fix="export it where TensorFlow is installed: python -m pip install tf2onnx,"
            " then python -m tf2onnx.convert --keras FILE.h5 --output model.onnx"
            " (for a SavedModel: --saved-model FOLDER); its table of tags goes beside model.onnx",
        )
    raise DataError(
        what="no tagger here: neither an .onnx nor a single .pt file",
        where=str(path),
        fix="a WD14 tagger is model.onnx and selected_tags.csv",
    )


def _kind_of(model_file: Path) -> str:
    if model_file.suffix == ".pt":
        return "deepdanbooru_torch"
    for table, kind in _TABLES.items():
        if model_file.with_name(table).is_file():
            return kind
    raise DataError(
        what="the model's table of tags is missing",
        where=str(model_file.parent),
        fix=f"put {', '.join(_TABLES)} (the one that belongs to this model) beside it",
    )
