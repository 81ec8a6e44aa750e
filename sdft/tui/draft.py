"""The two files as they are being written, before they are saved. Knows no screen.

In: the bytes of a dataset file and of a file of training settings, and single edits. Out: new
texts that differ in nothing but what was edited: comments, order, spacing, unknown keys, line
ends and a byte-order mark stay.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomlkit
from tomlkit.items import AoT, Table

from sdft.config.document import parsed
from sdft.config.positions import KeyPath
from sdft.config.write import toml_value
from sdft.errors import ConfigError, UserError
from sdft.files import write_bytes

Role = Literal["dataset", "config"]

DATASET: Role = "dataset"
CONFIG: Role = "config"

MAX_UNDO = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FileText:
    """One file: what is on disk, and what it will be."""

    path: Path
    """Absolute."""
    original: bytes | None
    """None where the file is not there yet."""
    text: str
    """With its own line ends, without a byte-order mark."""
    has_mark: bool = False

    def content(self) -> bytes:
        """Return the bytes to write; of a file that was not edited, those that were read."""
        return (codecs.BOM_UTF8 if self.has_mark else b"") + self.text.encode("utf-8")

    @property
    def is_changed(self) -> bool:
        return self.content() != self.original

    @property
    def old_text(self) -> str:
        return "" if self.original is None else self.original.decode("utf-8-sig")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Both files. Where one file holds both kinds of settings, `dataset` is None."""

    config: FileText
    dataset: FileText | None

    def file(self, role: Role) -> FileText:
        return self.dataset if role == DATASET and self.dataset is not None else self.config

    @property
    def files(self) -> tuple[FileText, ...]:
        return (self.config,) if self.dataset is None else (self.dataset, self.config)

    @property
    def is_changed(self) -> bool:
        return any(file.is_changed for file in self.files)

    def with_text(self, role: Role, text: str) -> Draft:
        changed = replace(self.file(role), text=text)
        if role == DATASET and self.dataset is not None:
            return replace(self, dataset=changed)
        return replace(self, config=changed)

    def with_value(self, role: Role, path: KeyPath, literal: str | None) -> Draft:
        """Set a key to a value in TOML's words, or take it out."""
        return self.with_text(role, edited(self.file(role).text, path, literal))

    def saved(self) -> Draft:
        """Write what differs from the disk; return the draft as it is then.

        Raises: EnvironmentFault where a file cannot be written; UserError where somebody else
            changed one since it was read.
        """
        for file in self.files:
            if file.is_changed and _on_disk(file.path) != file.original:
                raise UserError(
                    what="the file was changed by another program since it was opened",
                    where=str(file.path),
                    fix="open it again, or save under another name",
                )
        for file in self.files:
            if file.is_changed:
                write_bytes(file.path, file.content())
        return self.as_on_disk()

    def as_on_disk(self) -> Draft:
        dataset = self.dataset
        return Draft(
            config=replace(self.config, original=self.config.content()),
            dataset=replace(dataset, original=dataset.content()) if dataset else None,
        )


@dataclass(frozen=True, slots=True)
class History:
    """A draft, those before it and those that were taken back."""

    now: Draft
    past: tuple[tuple[str, Draft], ...] = ()
    """What was edited next, and the draft before that."""
    future: tuple[tuple[str, Draft], ...] = ()
    last_edit: str = ""

    def edited(self, draft: Draft, what: str, *, joins: bool = False) -> History:
        """Return the history with a new draft. `joins`: typing on in a field is one edit."""
        if draft == self.now:
            return self
        past = self.past
        if not (joins and what == self.last_edit and past):
            past = (*past, (what, self.now))[-MAX_UNDO:]
        return History(draft, past, (), what)

    def undone(self) -> tuple[History, str]:
        """Return the history one edit earlier and what that edit was; empty where there is none."""
        if not self.past:
            return self, ""
        what, before = self.past[-1]
        return History(before, self.past[:-1], ((what, self.now), *self.future)), what

    def redone(self) -> tuple[History, str]:
        if not self.future:
            return self, ""
        what, after = self.future[0]
        return History(after, (*self.past, (what, self.now)), self.future[1:]), what

    def on_disk(self, saved: Draft) -> History:
        """Return the history after its draft was written: all its drafts know the new files."""

        def known(draft: Draft) -> Draft:
            config = replace(draft.config, original=saved.config.original)
            dataset = draft.dataset
            if dataset is not None and saved.dataset is not None:
                dataset = replace(dataset, original=saved.dataset.original)
            return Draft(config=config, dataset=dataset)

        past = tuple((what, known(draft)) for what, draft in self.past)
        future = tuple((what, known(draft)) for what, draft in self.future)
        return History(known(self.now), past, future)

    def settled(self) -> History:
        """Return the history after a field was left: typing there again is another edit."""
        return replace(self, last_edit="")


def file_text(path: Path, template: str = "") -> FileText:
    """Read a file; one that is not there begins as `template`.

    Raises: ConfigError where it cannot be read, is not UTF-8, or has a mistake of TOML.
    """
    path = path.absolute()
    try:
        original = path.read_bytes()
    except FileNotFoundError:
        return FileText(path=path, original=None, text=template)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise ConfigError(what=what, where=str(path)) from error
    try:
        text = original.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not a UTF-8 text file (byte {error.start})"
        raise ConfigError(what=what, where=str(path), fix="save it as UTF-8") from error
    parsed(text, str(path), is_json=False)
    return FileText(
        path=path, original=original, text=text, has_mark=original.startswith(codecs.BOM_UTF8)
    )


def edited(text: str, path: KeyPath, literal: str | None) -> str:
    """Return a TOML text with one key set to a literal, or without it; all else as it was."""
    document = tomlkit.parse(text.replace("\r\n", "\n"))
    table: Any = document
    for key in path[:-1]:
        if isinstance(key, str) and key not in table:
            table[key] = tomlkit.table()
        table = table[key]
    name = path[-1]
    if literal is None:
        if name in table:
            del table[name]
    else:
        value = tomlkit.parse(f"value = {literal}\n")["value"]
        if name in table and table[name] == value and type(table[name]) is type(value):
            return text
        table[name] = value
    return with_line_ends(tomlkit.dumps(document), text)


def with_line_ends(new: str, old: str) -> str:
    """Give the lines of `new` the line ends that they have in `old`; new lines, the usual ones."""
    old_lines = old.splitlines(keepends=True)
    new_lines = new.splitlines(keepends=True)
    usual = "\r\n" if old.count("\r\n") * 2 > old.count("\n") else "\n"
    same = 0
    most = min(len(old_lines), len(new_lines))
    while same < most and _bare(old_lines[same]) == _bare(new_lines[same]):
        same += 1
    tail = 0
    while tail < most - same and _bare(old_lines[-1 - tail]) == _bare(new_lines[-1 - tail]):
        tail += 1
    middle = [_bare(line) + usual for line in new_lines[same : len(new_lines) - tail]]
    head = [line if line != _bare(line) else line + usual for line in old_lines[:same]]
    if not middle and not tail and same == len(old_lines):
        head = old_lines[:same]
    return "".join([*head, *middle, *old_lines[len(old_lines) - tail :]])


def _bare(line: str) -> str:
    return line.rstrip("\r\n")


def with_subset(text: str, image_dir: str, dataset: int = 0) -> str:
    """Return a dataset text with one more [[datasets.subsets]] behind those that are there."""
    values, lines = parsed(text, "", is_json=False)
    subsets = values.get("datasets", [{}])[dataset].get("subsets", [])
    head = lines.get(("datasets", dataset, "subsets", len(subsets) - 1)) if subsets else None
    key = f"image_dir = {toml_value(image_dir)}"
    rows = text.splitlines(keepends=True)
    is_table = head is not None and rows[head - 1].lstrip().startswith("[[")
    if subsets and not is_table:
        document = tomlkit.parse(text)
        entry = tomlkit.inline_table()
        entry.append("image_dir", image_dir)
        document["datasets"][dataset]["subsets"].append(entry)
        return with_line_ends(tomlkit.dumps(document), text)
    prefix: KeyPath = ("datasets", dataset)
    if is_table:
        prefix = (*prefix, "subsets", len(subsets) - 1)
    last = max((line for path, line in lines.items() if path[: len(prefix)] == prefix), default=0)
    # A value of several lines ends where the next key, header or comment begins.
    while last < len(rows) and rows[last].strip() and rows[last].lstrip()[0] not in "[#":
        last += 1
    model = rows[head - 1] if is_table and head else ""
    indent = model[: len(model) - len(model.lstrip())]
    new = [_bare(row) + "\n" for row in rows[:last]]
    new += ["\n", f"{indent}[[datasets.subsets]]\n", f"{indent}{key}\n"]
    new += [_bare(row) + "\n" for row in rows[last:]]
    return with_line_ends("".join(new), text)


def without_subset(text: str, subset: int, dataset: int = 0) -> str:
    """Return a dataset text without one of its subsets."""
    document = tomlkit.parse(text.replace("\r\n", "\n"))
    table: Any = document["datasets"][dataset]
    assert isinstance(table, Table | dict)
    subsets = table["subsets"]
    if len(subsets) == 1 and isinstance(subsets, AoT):
        del table["subsets"]
    else:
        del subsets[subset]
    return with_line_ends(tomlkit.dumps(document), text)


def changed_rows(old: str, new: str) -> Sequence[tuple[str, str]]:
    """Return every line of `new` with a mark: `+` new or changed, `-` gone, else a space."""
    from difflib import SequenceMatcher

    old_rows, new_rows = old.splitlines(), new.splitlines()
    rows: list[tuple[str, str]] = []
    matcher = SequenceMatcher(None, old_rows, new_rows, autojunk=False)
    for kind, first, last, new_first, new_last in matcher.get_opcodes():
        if kind == "equal":
            rows += [(" ", row) for row in new_rows[new_first:new_last]]
        else:
            rows += [("-", row) for row in old_rows[first:last]]
            rows += [("+", row) for row in new_rows[new_first:new_last]]
    return rows


def _on_disk(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
