"""Finds the caption file of each image in a folder, without asking the disk again.

In: the files of one folder. Out: names of caption files.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter

from sdft.dataset.captions import caption_stems
from sdft.dataset.listing import Folder, extension_of

IN_SHARDS = (".txt", ".json")
"""What webdataset calls captions; looked for where there is none of the kind asked for."""


class CaptionFinder:
    """Caption files of one folder, looked up without asking the disk again."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._names = frozenset(folder.others)
        self._by_form: dict[str, str] | None = None

    def find_all(self, extension: str) -> list[str]:
        """Return the caption file of each image; empty where there is none."""
        # Nearly always the first name that is tried is there. An image's name has an extension.
        names = [name[: name.rindex(".")] + extension for name in self._folder.images]
        if self._names.issuperset(names):
            return names
        return [
            name if name in self._names else self._find(image_name, extension)
            for name, image_name in zip(names, self._folder.images, strict=True)
        ]

    def _find(self, image_name: str, extension: str) -> str:
        for stem in caption_stems(image_name[: image_name.rindex(".")]):
            name = stem + extension
            if name in self._names:
                return name
            if not name.isascii() and (other := self._in_other_form(name)):
                return other
        return ""

    def kinds(self) -> Counter[str]:
        stems = {
            stem
            for name in self._folder.images
            for stem in caption_stems(os.path.splitext(name)[0])
        }
        beside = (name for name in self._folder.others if os.path.splitext(name)[0] in stems)
        return Counter(kind for name in beside if (kind := extension_of(name)))

    def _in_other_form(self, name: str) -> str | None:
        if self._by_form is None:
            self._by_form = {unicodedata.normalize("NFC", other): other for other in self._names}
        return self._by_form.get(unicodedata.normalize("NFC", name))


def by_convention(finder: CaptionFinder, names: list[str], otherwise: Counter[str]) -> list[str]:
    """Return caption files, with those of webdataset's own kinds where there was none."""
    for extension in IN_SHARDS:
        if all(names):
            break
        others = finder.find_all(extension)
        otherwise[extension] += sum(
            not name and bool(other) for name, other in zip(names, others, strict=True)
        )
        names = [name or other for name, other in zip(names, others, strict=True)]
    return names
