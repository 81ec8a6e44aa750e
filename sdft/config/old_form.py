"""Datasets without a dataset file: a folder, or a folder and a metadata file, named by flags.

In: train_data_dir and in_json. Out: the same as a Document, so that inheritance and checks are
those of a dataset file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sdft.config.document import Document
from sdft.errors import Problem
from sdft.urls import UrlPath

_REPEATS_AND_CLASS = re.compile(r"(\d+)_(.+)")


def old_form_document(
    train_data_dir: Path | None, in_json: Path | None, where: str
) -> tuple[Document, list[Problem]]:
    """Return one dataset, and notices about folders that are passed over.

    With `in_json` the captions come from that file. Else each folder within that is named
    `<repeats>_<class>` is a subset with that class as its caption where an image has none; and
    where there is no such folder, the images of `train_data_dir` itself are taken.
    """
    subsets: list[dict[str, Any]] = []
    notices: list[Problem] = []
    if in_json is not None:
        subset = {"metadata_file": str(in_json)}
        if train_data_dir is not None:
            subset["image_dir"] = str(train_data_dir)
        subsets.append(subset)
    else:
        assert train_data_dir is not None
        folders = _folders_of(train_data_dir)
        subsets += [
            {"image_dir": str(folder), "num_repeats": int(match[1]), "class_tokens": match[2]}
            for folder in folders
            if (match := _REPEATS_AND_CLASS.fullmatch(folder.name))
        ]
        if not subsets:
            subsets.append({"image_dir": str(train_data_dir)})
        else:
            notices = [
                Problem(
                    f"folder {folder.name} is not used: its name is not <repeats>_<class>", where
                )
                for folder in folders
                if not _REPEATS_AND_CLASS.fullmatch(folder.name)
            ]
    values = {"datasets": [{"subsets": subsets}]}
    # Caches lie beside the images, but for those of object stores.
    folder = train_data_dir or Path(".")
    if isinstance(folder, UrlPath):
        folder = Path(".")
    return Document(path=folder / "-", name=where, values=values, lines={}), notices


def _folders_of(path: Path) -> list[Path]:
    # A folder that is missing or closed is told by the check of paths.
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []
