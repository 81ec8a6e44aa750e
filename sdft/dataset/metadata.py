"""Reads metadata files: which captions and tags belong to which image.

In: a `.json` file ({key: {"caption": ..., "tags": ...}}), a `.jsonl` file (one object a line with
`image_path`), or a `.parquet` file (one row each; columns `image_path`, `caption`, `tags`, and
`image_size`, or `width` and `height`). Out: the text of each key, in the file's order, and sizes.

Sizes count in a `.parquet` file only: there are so many images in those that opening each takes
long. Elsewhere sizes come from the files themselves, and buckets always from sizes:
`train_resolution` is not read.
Source: sd-scripts v0.10, FineTuningDataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft.dataset.parquet import parquet_rows
from sdft.dataset.records import Size, WordRules
from sdft.errors import DataError, Problem
from sdft.files import read_text

MAX_PROBLEMS_SHOWN = 20
PARQUET = ".parquet"


@dataclass(frozen=True, slots=True)
class Metadata:
    captions: dict[str, str]
    """The whole text by key: caption and tags joined."""
    sizes: dict[str, Size]
    """Upright, of the keys that have one."""
    repeated: tuple[str, ...]
    """Keys that stand in the file more than once; the last one counts."""


def read_metadata(path: Path, rules: WordRules) -> Metadata:
    """Return the texts of a metadata file.

    Raises: DataError with every mistake and its line or key; OSError where it cannot be read;
        EnvironmentFault where a .parquet file needs a package that is missing.
    """
    problems: list[Problem] = []
    captions: dict[str, str] = {}
    sizes: dict[str, Size] = {}
    repeated: dict[str, None] = {}
    has_sizes = path.suffix.lower() == PARQUET
    for key, entry, where in _entries(path, problems):
        found = _words(entry, rules, where, problems)
        if key in captions:
            repeated[key] = None
            sizes.pop(key, None)
        captions[key] = found
        if has_sizes and (size := _size(entry, where, problems)) is not None:
            sizes[key] = size
    if problems:
        left = len(problems) - MAX_PROBLEMS_SHOWN
        more = [Problem(f"and {left} more mistakes like these", str(path))] if left > 0 else []
        raise DataError(problems=[*problems[:MAX_PROBLEMS_SHOWN], *more])
    return Metadata(captions, sizes, tuple(repeated))


def joined(caption: str, tags: str, rules: WordRules) -> str:
    """Return caption, separator and tags as one text; what is empty brings no separator.

    With `enable_wildcard` every line of the caption gets the tags, else only its first line is
    kept: it alone would be read.
    """
    lines = [line.strip() for line in caption.replace("\r\n", "\n").split("\n") if line.strip()]
    lines = lines if rules.enable_wildcard else lines[:1]
    # Tags over several lines would read as further captions.
    tags = " ".join(tags.split("\n")).strip()
    if not tags:
        return "\n".join(lines)
    if not lines:
        return tags
    return "\n".join(f"{line}{rules.caption_separator}{tags}" for line in lines)


Entries = Iterator[tuple[str, Any, str]]
"""Key, what the file says of it, and the place in words."""


def _entries(path: Path, problems: list[Problem]) -> Entries:
    kind = path.suffix.lower()
    if kind == PARQUET:
        return _parquet_rows(path, problems)
    text = read_text(path)
    return (_json_lines if kind == ".jsonl" else _json_object)(text, path, problems)


def _parquet_rows(path: Path, problems: list[Problem]) -> Entries:
    for number, row in enumerate(parquet_rows(path), start=1):
        where = f"{path}, row {number}"
        key = row.get("image_path")
        if isinstance(key, str) and key:
            yield key, row, where
        else:
            problems.append(
                Problem("the row names no image", where, "fill the column image_path with texts")
            )


def _json_object(text: str, path: Path, problems: list[Problem]) -> Entries:
    """Read one object. Pairs are kept as they stand, so that a key given twice is seen."""
    pairs = _parsed(text, path, 0, object_pairs_hook=_Pairs)
    if not isinstance(pairs, _Pairs):
        problems.append(
            Problem(
                "the file does not hold an object of image keys",
                str(path),
                'write {"image name": {"caption": "...", "tags": "..."}}',
            )
        )
        return
    for key, entry in pairs:
        value = dict(entry) if isinstance(entry, _Pairs) else entry
        yield key, value, f'{path}, key "{key}"'


def _json_lines(text: str, path: Path, problems: list[Problem]) -> Entries:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            entry = _parsed(line, path, number - 1)
        except DataError as error:
            problems += error.problems
            continue
        key = entry.get("image_path") if isinstance(entry, dict) else None
        if isinstance(key, str) and key:
            yield key, entry, where
        else:
            problems.append(
                Problem(
                    "the line names no image",
                    where,
                    'write {"image_path": "...", "caption": "..."} on each line',
                )
            )


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as pairs; a list of its own kind, to tell it from a JSON array."""


def _parsed(text: str, path: Path, lines_before: int, **how: Any) -> Any:
    try:
        return json.loads(text, **how)
    except json.JSONDecodeError as error:
        raise DataError(
            what=f"not JSON: {error.msg}",
            where=f"{path}:{lines_before + error.lineno}, column {error.colno}",
            fix="compare with the lines above it; a missing comma or quote is common",
        ) from error
    except RecursionError as error:
        raise DataError(what="not a metadata file: nested too deep", where=str(path)) from error
    except ValueError as error:
        # Python reads no number of more than 4,300 digits.
        raise DataError(what=f"not a metadata file: {error}", where=str(path)) from error


def _words(entry: Any, rules: WordRules, where: str, problems: list[Problem]) -> str:
    if not isinstance(entry, dict):
        problems.append(
            Problem(
                f"an object with caption and tags is wanted, this is {_kind(entry)}",
                where,
                'write {"caption": "...", "tags": "..."}',
            )
        )
        return ""
    texts = {}
    for name in ("caption", "tags"):
        value = entry.get(name)
        if value is not None and not isinstance(value, str):
            problems.append(Problem(f"{name} is {_kind(value)}, not a text", where))
        texts[name] = value if isinstance(value, str) else ""
    return joined(texts["caption"], texts["tags"], rules)


def _size(entry: Mapping[str, Any], where: str, problems: list[Problem]) -> Size | None:
    """Return the size that a row gives, upright; None where it gives none."""
    name = "image_size"
    given = entry.get(name)
    if given is None:
        name = "width and height"
        given = [entry.get("width"), entry.get("height")]
        if given == [None, None]:
            return None
    is_size = (
        isinstance(given, list)
        and len(given) == 2
        and all(isinstance(side, int) and side > 0 for side in given)
    )
    if not is_size:
        fix = "give whole numbers of pixels, width before height, or null"
        problems.append(Problem(f"{name} is no size: {given}", where, fix))
        return None
    return given[0], given[1]


def _kind(value: Any) -> str:
    """Name a JSON value's kind for a person."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    if value is None:
        return "null"
    # A nested object comes as pairs, which are a list to Python.
    if isinstance(value, dict | _Pairs):
        return "an object"
    return names.get(type(value), "a list")
