"""What each output of a tagger means.

In: the table that lies beside a tagger's model. Out: a TagTable, one row an output.
Forms: `selected_tags.csv` (WD14 v1 to v3), `tag_mapping.json` (newer taggers), `tags.txt`
(DeepDanbooru).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.errors import DataError
from sdft.files import read_text

CATEGORIES = (
    "rating",
    "general",
    "character",
    "copyright",
    "meta",
    "model",
    "quality",
    "artist",
)

_CSV_CATEGORIES = {"9": "rating", "0": "general", "4": "character"}
"""Source: Danbooru's own category numbers, and 9 for ratings in the WD14 taggers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagTable:
    """Row i says what output i of the model means."""

    names: tuple[str, ...]
    """As the file has them, with underscores."""
    categories: tuple[str, ...]
    """One of CATEGORIES each."""
    path: str

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.categories)


def read_selected_tags(path: Path) -> TagTable:
    """Read `selected_tags.csv`: header `tag_id,name,category,count`.

    Raises: DataError where a column is absent or a row is cut off.
    """
    rows = list(csv.DictReader(read_text(path).splitlines()))
    missing = {"name", "category"} - set(rows[0] if rows else ())
    if missing:
        raise DataError(
            what=f"the column {', '.join(sorted(missing))} is missing or the table is empty",
            where=str(path),
            fix="its first line should be tag_id,name,category,count; download the model again",
        )
    for number, row in enumerate(rows, start=2):
        if not row["name"] or row["category"] not in _CSV_CATEGORIES:
            raise DataError(
                what=f'not a tag row: name "{row["name"]}", category "{row["category"]}"',
                where=f"{path}:{number}",
                fix="categories are 9 (rating), 0 (general) and 4 (character)",
            )
    return TagTable(
        names=tuple(row["name"] for row in rows),
        categories=tuple(_CSV_CATEGORIES[row["category"]] for row in rows),
        path=str(path),
    )


def read_tag_mapping(path: Path) -> TagTable:
    """Read `tag_mapping.json`: {"<index>": {"tag": ..., "category": ...}}.

    Raises: DataError where the indices have gaps or a category is unknown.
    """
    try:
        rows = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(what=f"not JSON: {error}", where=str(path)) from error
    names: list[str] = []
    categories: list[str] = []
    for index in range(len(rows) if isinstance(rows, dict) else 0):
        row = rows.get(str(index))
        category = str(row.get("category", "")).lower() if isinstance(row, dict) else ""
        if row is None or category not in CATEGORIES or not isinstance(row.get("tag"), str):
            raise DataError(
                what=f"no usable entry for output {index}",
                where=str(path),
                fix='each index from "0" on needs a tag and a known category',
            )
        names.append(row["tag"])
        categories.append(category)
    if not names:
        raise DataError(what="no tags in the table", where=str(path))
    return TagTable(names=tuple(names), categories=tuple(categories), path=str(path))


def read_tag_lines(path: Path) -> TagTable:
    """Read DeepDanbooru's `tags.txt`, and `tags-character.txt` beside it if it is there.

    Raises: DataError where there are no tags.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise DataError(what="no tags in the file", where=str(path))
    beside = path.with_name("tags-character.txt")
    characters = read_text(beside).split() if beside.is_file() else ()
    return danbooru_table(names, characters, str(path))


def danbooru_table(names: Sequence[str], characters: Sequence[str], path: str) -> TagTable:
    """Return the table of DeepDanbooru's flat list, where ratings are named `rating:...`."""
    known_characters = set(characters)
    return TagTable(
        names=tuple(names),
        categories=tuple(
            "rating"
            if name.startswith("rating:")
            else ("character" if name in known_characters else "general")
            for name in names
        ),
        path=path,
    )
