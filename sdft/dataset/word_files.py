"""Caption and tag files as text, whatever program saved them.

In: a file. Out: its words, and how they were encoded where it was not UTF-8.
An encoding is taken only where the file proves it (a byte-order mark, or zero bytes at every
second place); anything else is refused by name, since a wrong guess garbles words for good.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.dataset.captions import caption_stems
from sdft.dataset.shards import shards_of
from sdft.errors import DataError, Problem

_MARKS = ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))

_LIKELY_ENCODINGS = (("shift_jis", "Shift-JIS"), ("gb18030", "GB 18030"), ("cp1252", "Latin"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a caption or tag file holds."""

    text: str
    """Lines end in `\\n`; nothing blank in front or behind."""
    encoding: str = "UTF-8"


def read_words(path: Path) -> Words:
    """Read a caption or tag file.

    Raises: DataError where its encoding is not certain; OSError where it cannot be read.
    """
    return decode_words(path.read_bytes(), path)


def decode_words(content: bytes, path: Path) -> Words:
    """Return the words of a file's bytes; `path` names the file in an error.

    Raises: DataError where the encoding is not certain.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    encoding = encoding or _utf16_without_mark(content) or "UTF-8"
    try:
        text = content.decode("utf-8-sig" if encoding == "UTF-8" else encoding)
    except UnicodeDecodeError as error:
        likely = _likely_encoding(content)
        hint = f"; it looks like {likely}" if likely else ""
        raise DataError(
            what=f"not UTF-8 text (byte {error.start}){hint}",
            where=str(path),
            fix="open it in an editor that shows it rightly and save it as UTF-8",
        ) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n\t ")
    return Words(text=lines, encoding=encoding)


def words_file(image: Path, extension: str) -> Path:
    """Return where the words of an image stand: its own stem, or the stem without face numbers."""
    files = [image.with_name(stem + extension) for stem in caption_stems(image.stem)]
    shards = shards_of(image)
    if shards is not None:
        files = [shards.member(str(file)) or file for file in files]
    return next((file for file in files if file.is_file()), files[0])


def with_dot(extension: str) -> str:
    """Return an extension as files have it: `txt` and `.txt` are the same wish."""
    return extension if extension.startswith(".") or not extension else f".{extension}"


def shared_stem_notices(images: Sequence[Path]) -> list[Problem]:
    """Return a line for each group of images that one caption file would serve."""
    groups: dict[tuple[Path, str], list[str]] = {}
    for image in images:
        groups.setdefault((image.parent, image.stem), []).append(image.name)
    return [
        Problem(
            f"{len(names)} images share one caption file: {', '.join(names)}",
            str(folder / stem),
            "rename one of them",
        )
        for (folder, stem), names in groups.items()
        if len(names) > 1
    ]


def _utf16_without_mark(content: bytes) -> str | None:
    if len(content) < 4 or len(content) % 2:
        return None
    odd, even = content[1::2], content[::2]
    if not any(odd):
        return "UTF-16-LE"
    return None if any(even) else "UTF-16-BE"


def _likely_encoding(content: bytes) -> str:
    for encoding, name in _LIKELY_ENCODINGS:
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return name
    return ""
