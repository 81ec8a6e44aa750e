"""Where words go: a file beside each image, or one table for all.

Both remember what they wrote, so that the same command goes on where it stopped, and neither
replaces what a person wrote unless it is told to.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sdft.dataset.pixels import read_header
from sdft.dataset.word_files import read_words
from sdft.dataset.write_log import FOLDER, FOREIGN, OTHER, SAME, WriteLog, image_stamp
from sdft.errors import EnvironmentFault, UserError
from sdft.files import append_to, in_form_of, read_text
from sdft.labelers.records import Words
from sdft.labelers.runner import Task
from sdft.labelers.selection import appended, parse_tag_list

TODO = "todo"
FINISHED = "finished"
KEPT = "kept"


class Sink(Protocol):
    def state(self, task: Task) -> str:
        """Return TODO, FINISHED (written by the same settings) or KEPT (a person's own words).

        Raises: DataError where words that are to be kept cannot be read.
        """

    def write(self, task: Task, words: Words) -> None:
        """Write the words of one image. Called by several threads."""

    def words_of(self, task: Task) -> Words:
        """Return the words of an image that is finished."""

    def finish(self) -> None:
        """Called after the last image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFiles:
    """One file beside each image, with the image's stem."""

    log: WriteLog
    extension: str
    separator: str
    append: bool = False
    """Keep the tags that a file has and add only new ones."""
    overwrite: bool = False

    def file_of(self, task: Task) -> Path:
        return task.path.with_suffix(self.extension)

    def state(self, task: Task) -> str:
        file = self.file_of(task)
        origin = self.log.origin(file, image_stamp(task.path))
        if origin == SAME:
            return FINISHED
        if self.append and origin in (FOREIGN, OTHER):
            read_words(file)
        return KEPT if origin == FOREIGN and not (self.append or self.overwrite) else TODO

    def write(self, task: Task, words: Words) -> None:
        if self.state(task) == KEPT:
            # Somebody wrote a caption while this run was on its way here.
            return
        file, stamp = self.file_of(task), image_stamp(task.path)
        whole = True
        if self.append and file.is_file():
            whole = self.log.origin(file, stamp) == OTHER
            words = tuple(appended(read_words(file).text, words, self.separator))
        text = self.separator.join(words) + "\n"
        self.log.write(file, in_form_of(file, text), about=stamp, whole=whole)

    def words_of(self, task: Task) -> Words:
        return parse_tag_list(read_words(self.file_of(task)).text, self.separator)

    def finish(self) -> None:
        self.log.finish()


@dataclass(slots=True, kw_only=True)
class Table:
    """One `.json` or `.jsonl` for all images, in sd-scripts' form.

    Results are kept one a line in `.sdft/` as they come; the table is put together at the end.
    """

    log: WriteLog
    path: Path
    separator: str
    kind: str = "tags"
    """What the words are: tags, or caption. A table of ours keeps what it has of the other."""
    overwrite: bool = False
    _results: dict[str, dict[str, Any]] = field(default_factory=dict)
    _order: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.path.suffix not in (".json", ".jsonl"):
            raise UserError(
                what="the table is a .json or a .jsonl file", where=f"--output_path {self.path}"
            )
        if not self.overwrite and self.log.origin(self.path) == FOREIGN:
            raise UserError(
                what="this file exists and was not made by sdft",
                where=str(self.path),
                fix="--overwrite replaces it (metadata undo brings it back)",
            )
        if self._notes.is_file():
            for line in read_text(self._notes).splitlines():
                self._take_note(line)

    @property
    def _notes(self) -> Path:
        return self.path.parent / FOLDER / f"{self.path.name}.notes.jsonl"

    def state(self, task: Task) -> str:
        key = task.name
        self._order.append(key)
        known = self._results.get(key)
        fits = known is not None and known["about"] == list(image_stamp(task.path))
        return FINISHED if fits else TODO

    def write(self, task: Task, words: Words) -> None:
        note = {
            "settings": self.log.settings,
            "image": task.name,
            "about": list(image_stamp(task.path)),
            "size": list(read_header(task.path)),
            "words": list(words),
        }
        line = json.dumps(note) + "\n"
        with self._lock:
            try:
                self._notes.parent.mkdir(parents=True, exist_ok=True)
                with append_to(self._notes) as file:
                    file.write(line.encode("ascii"))
            except OSError as error:
                raise EnvironmentFault(
                    what=f"cannot be written: {error.strerror}", where=str(self._notes)
                ) from error
            self._results[task.name] = note

    def words_of(self, task: Task) -> Words:
        return tuple(self._results[task.name]["words"])

    def finish(self) -> None:
        """Write the table, unless it already says just this."""
        content = self._content().encode("utf-8")
        if not self.path.is_file() or self.path.read_bytes() != content:
            self.log.write(self.path, content)
        self.log.finish()

    def _content(self) -> str:
        found = [self._results[key] for key in self._order if key in self._results]
        words = [self.separator.join(note["words"]) for note in found]
        if self.path.suffix == ".json":
            before = self._before()
            table = {}
            for note, text in zip(found, words, strict=True):
                entry = before.get(note["image"], {}) | {self.kind: text}
                named = {name: entry[name] for name in ("caption", "tags") if name in entry}
                table[note["image"]] = named | {"image_size": note["size"]}
            return json.dumps(table, indent=4, ensure_ascii=False) + "\n"
        lines = [
            {"image_path": note["image"], "caption": text, "image_size": note["size"]}
            for note, text in zip(found, words, strict=True)
        ]
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

    def _before(self) -> dict[str, dict[str, Any]]:
        """Return the entries that the table has, if it was made by us."""
        if self.log.origin(self.path) not in (SAME, OTHER):
            return {}
        entries = json.loads(read_text(self.path))
        return {key: entry for key, entry in entries.items() if isinstance(entry, dict)}

    def _take_note(self, line: str) -> None:
        try:
            note = json.loads(line)
        except ValueError:
            # The last line of a killed run may be cut off; its image is labelled again.
            return
        if note.get("settings") == self.log.settings:
            self._results[note["image"]] = note
