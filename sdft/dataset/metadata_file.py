"""Metadata files with everything in them: `.json`, `.jsonl` and `.parquet`.

In: a file. Out: its entries, image key -> fields, in the file's order; and back. Unlike the
training index, which takes only what it needs, this keeps fields that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft.dataset.parquet import parquet_rows, pyarrow_or_fault
from sdft.errors import DataError, Problem, UserError
from sdft.files import in_form_of, read_text

Entries = dict[str, dict[str, Any]]

SUFFIXES = (".json", ".jsonl", ".parquet")

_TEXT_FIELDS = ("caption", "tags")

_SIZE_FIELDS = ("image_size", "train_resolution")


def check_suffix(path: Path) -> None:
    """Raises: UserError for a name that is no metadata file's."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            what=f'a metadata file ends in {", ".join(SUFFIXES)}, not in "{path.suffix}"',
            where=str(path),
        )


def read_metadata(path: Path) -> Entries:
    """Read all entries.

    Raises: DataError with every problem (broken JSON with line and column, an entry that is no
        object, a key that stands twice); UserError for another kind of file or a missing one.
    """
    check_suffix(path)
    if not path.is_file():
        raise UserError(what="no such metadata file", where=str(path))
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    reader = _Reader(path=str(path))
    if suffix == ".json":
        reader.read_json(read_text(path))
    else:
        reader.read_lines(read_text(path))
    if reader.problems:
        raise DataError(problems=reader.problems)
    return reader.entries


def fill_metadata(part: Path, entries: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write entries to a file that is to become `path`, in the form of its suffix.

    Byte-order mark and line ends of the file that it replaces are kept.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        _write_parquet(part, entries)
    else:
        part.write_bytes(in_form_of(path, metadata_text(entries, suffix)))


def metadata_text(entries: Mapping[str, Mapping[str, Any]], suffix: str) -> str:
    """Return the text of a `.json` (indent 2) or `.jsonl` file, non-ASCII escaped."""
    if suffix == ".json":
        return json.dumps(entries, indent=2) + "\n"
    lines = (json.dumps({"image_path": key} | dict(entry)) for key, entry in entries.items())
    return "".join(f"{line}\n" for line in lines)


@dataclass(slots=True)
class _Reader:
    path: str
    entries: Entries = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def read_json(self, text: str) -> None:
        try:
            top = json.loads(text, object_pairs_hook=self._unique)
        except json.JSONDecodeError as error:
            self._broken(error, error.lineno)
            return
        except (ValueError, RecursionError) as error:
            self._unreadable(error, self.path)
            return
        if not isinstance(top, dict):
            self.problems.append(
                Problem(
                    "not a metadata file: its top is no object",
                    self.path,
                    'it should look like {"image.png": {"caption": "...", "tags": "..."}}',
                )
            )
            return
        for key, entry in top.items():
            self._add(key, entry, self.path)

    def read_lines(self, text: str) -> None:
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{self.path}:{number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                self._broken(error, number)
                continue
            except (ValueError, RecursionError) as error:
                self._unreadable(error, where)
                continue
            key = record.pop("image_path", None) if isinstance(record, dict) else None
            if not isinstance(key, str):
                self.problems.append(Problem("the line has no image_path", where))
            elif key in self.entries:
                self.problems.append(Problem(f'the image "{key}" stands twice', where))
            else:
                self._add(key, record, where)

    def _add(self, key: str, entry: Any, where: str) -> None:
        if not isinstance(entry, dict):
            self.problems.append(Problem("the entry is no object", f'{where}, "{key}"'))
            return
        for name in _TEXT_FIELDS:
            if not isinstance(entry.get(name, ""), str):
                self.problems.append(Problem(f"{name} is not text", f'{where}, "{key}"'))
        self.entries[key] = entry

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        unique = dict(pairs)
        if len(unique) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self.problems.append(
                Problem(f'the key "{twice}" stands twice in one object', self.path, "keep one")
            )
        return unique

    def _unreadable(self, error: Exception, where: str) -> None:
        """Note a number of more digits, or a nesting deeper, than Python reads."""
        self.problems.append(Problem(f"broken JSON: {error}", where))

    def _broken(self, error: json.JSONDecodeError, line: int) -> None:
        where = f"{self.path}:{line}:{error.colno}"
        self.problems.append(Problem(f"broken JSON: {error.msg}", where))


def _read_parquet(path: Path) -> Entries:
    rows = parquet_rows(path)
    reader = _Reader(path=str(path))
    for number, row in enumerate(rows, start=1):
        key = row.pop("image_path", None)
        entry = {name: value for name, value in row.items() if value is not None}
        if not isinstance(key, str) or key in reader.entries:
            what = "the row has no image_path" if not key else f'the image "{key}" stands twice'
            reader.problems.append(Problem(what, f"{path}, row {number}"))
        else:
            reader._add(key, entry, f"{path}, row {number}")
    if reader.problems:
        raise DataError(problems=reader.problems)
    return reader.entries


def _write_parquet(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    pyarrow = pyarrow_or_fault()
    known = {*_TEXT_FIELDS, *_SIZE_FIELDS}
    for key, entry in entries.items():
        unknown = entry.keys() - known
        if unknown:
            raise UserError(
                what=f"a Parquet file has no column for {', '.join(sorted(unknown))}",
                where=f'"{key}"',
                fix="write .json or .jsonl, which keep every field",
            )
    columns: dict[str, Any] = {"image_path": pyarrow.array(list(entries), pyarrow.string())}
    types = dict.fromkeys(_TEXT_FIELDS, pyarrow.string())
    types |= dict.fromkeys(_SIZE_FIELDS, pyarrow.list_(pyarrow.int32()))
    for name, kind in types.items():
        values = [entry.get(name) for entry in entries.values()]
        if name in _TEXT_FIELDS or any(value is not None for value in values):
            columns[name] = pyarrow.array(values, kind)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
