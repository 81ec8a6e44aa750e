"""Captions and tags from files beside the images into one set of metadata entries.

In: the images, the extensions of their words, the entries that exist. Out: the entries as they
should be, and what was added, kept or found wrong. Reads word files; writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdft.dataset.image_list import ListedImage, common_folder
from sdft.dataset.metadata_file import Entries
from sdft.dataset.shards import json_words
from sdft.dataset.word_files import read_words, shared_stem_notices, words_file
from sdft.errors import DataError, Problem, UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The entries after a merge, and what happened on the way."""

    entries: Entries
    base: Path | None
    """The folder that relative keys start from; none with full paths."""
    num_added: int
    """Values that were not there before."""
    num_replaced: int
    num_kept: int
    """Values that differ from the word files and stay, because nobody asked to overwrite them."""
    without_words: tuple[str, ...]
    """Keys of images that have neither caption nor tags."""
    notices: tuple[Problem, ...]
    """Words read with a warning, empty files, shared stems."""
    problems: tuple[Problem, ...]
    """Word files that could not be read; their images get no words from them."""


def merge_words(
    images: Sequence[ListedImage],
    *,
    caption_extension: str | None = ".caption",
    tags_extension: str | None = ".txt",
    full_path: bool = False,
    existing: Mapping[str, Mapping[str, object]] | None = None,
    overwrite: bool = False,
) -> Merged:
    """Add each image's caption and tags to the entries; an extension of None is left out.

    Images in tar shards have the keys that training gives them, as if the shards were unpacked; the
    words of one without such members come from its `.json`.

    A key is the image's path below the images' common folder, with its extension, or its absolute
    path with `full_path`. An entry that exists under the image's stem, as older tools write it,
    keeps its key.

    Raises: UserError where the images lie on different drives and keys are to be relative;
        DataError where one stem key would stand for two images.
    """
    base = None if full_path else common_folder(images)
    if base is None and not full_path:
        raise UserError(
            what="the folders have nothing in common that keys could be relative to",
            fix="use --full_path, or one metadata file for each folder",
        )
    merge = _Merge(
        entries={key: dict(entry) for key, entry in (existing or {}).items()}, overwrite=overwrite
    )
    keys = _keys_of(images, base, merge.entries)
    merge.notices.extend(shared_stem_notices([image.place for image in images]))
    for image, key in zip(images, keys, strict=True):
        entry = merge.entries.setdefault(key, {})
        for name, extension in (("caption", caption_extension), ("tags", tags_extension)):
            if extension is not None:
                merge.take(entry, name, words_file(image.path, extension))
        if image.in_shard and not has_words(entry):
            merge.take_json(entry, words_file(image.path, ".json"))
    return Merged(
        entries=merge.entries,
        base=base,
        num_added=merge.counts["added"],
        num_replaced=merge.counts["replaced"],
        num_kept=merge.counts["kept"],
        without_words=tuple(key for key in keys if not has_words(merge.entries[key])),
        notices=tuple(merge.notices),
        problems=tuple(merge.problems),
    )


def has_words(entry: Mapping[str, object]) -> bool:
    """Tell whether an entry says anything."""
    return bool(entry.get("caption") or entry.get("tags"))


def key_for(image: Path, base: Path | None) -> str:
    """Return the key of an image: its path below `base`, or the whole path, with `/`."""
    return image.as_posix() if base is None else image.relative_to(base).as_posix()


def _keys_of(
    images: Sequence[ListedImage], base: Path | None, existing: Mapping[str, object]
) -> list[str]:
    keys = [_existing_key(image.place, base, existing) for image in images]
    uses = Counter(keys)
    problems = [
        Problem(
            f'the key "{key}" stands for {uses[key]} images',
            str(image.place),
            "give the entry each image's name with its extension, or merge into a new file",
        )
        for image, key in zip(images, keys, strict=True)
        if uses[key] > 1
    ]
    if problems:
        raise DataError(problems=problems)
    return keys


def _existing_key(image: Path, base: Path | None, existing: Mapping[str, object]) -> str:
    own = key_for(image, base)
    spellings = [own, image.as_posix(), str(image)]
    if base is not None:
        relative = image.relative_to(base)
        spellings += [str(relative), relative.with_suffix("").as_posix()]
    spellings.append(image.stem)
    return next((key for key in spellings if key in existing), own)


@dataclass(slots=True, kw_only=True)
class _Merge:
    entries: Entries
    overwrite: bool
    counts: Counter[str] = field(default_factory=Counter)
    notices: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def take_json(self, entry: dict[str, object], file: Path) -> None:
        """Take both from a member that tar shards have in the place of word files."""
        try:
            texts = json_words(file.read_bytes())
        except FileNotFoundError:
            return
        except (DataError, OSError) as error:
            what = error.problems[0].what if isinstance(error, DataError) else error.strerror
            self.problems.append(Problem(f"cannot be read: {what}", str(file)))
            return
        for name, text in zip(("caption", "tags"), texts, strict=True):
            if text.strip():
                entry[name] = text.strip()
                self.counts["added"] += 1

    def take(self, entry: dict[str, object], name: str, file: Path) -> None:
        try:
            words = read_words(file)
        except FileNotFoundError:
            return
        except DataError as error:
            self.problems.extend(error.problems)
            return
        except OSError as error:
            self.problems.append(Problem(f"cannot be read: {error.strerror}", str(file)))
            return
        if words.encoding != "UTF-8":
            self.notices.append(Problem(f"read as {words.encoding}", str(file), "save it as UTF-8"))
        old = entry.get(name)
        if not words.text:
            self.notices.append(Problem("the file is empty", str(file)))
        elif not old:
            entry[name] = words.text
            self.counts["added"] += 1
        elif old != words.text:
            self.counts["replaced" if self.overwrite else "kept"] += 1
            if self.overwrite:
                entry[name] = words.text
