"""What is odd about a set of metadata entries.

In: entries, the folder that relative keys start from, the images that should have words. Out:
findings, each an error (training would miss something) or a warning. Changes nothing.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sdft.dataset.cleaning import split_tags
from sdft.dataset.listing import is_image
from sdft.dataset.merging import has_words
from sdft.dataset.word_files import shared_stem_notices

TOKEN_LIMITS = (75, 150, 225)
"""What `max_token_length` can be."""

_STRANGE_SPACES = "\u00a0\u2000-\u200a\u202f\u205f\u3000"
_FULL_WIDTH_COMMAS = "\uff0c\u3001"
_ODD = re.compile(f"[{_STRANGE_SPACES}{_FULL_WIDTH_COMMAS}\ufffd]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a person should look at."""

    kind: str
    """A stable word for scripts, such as `image without words`."""
    where: str
    what: str
    is_error: bool = False


def check_entries(
    entries: Mapping[str, Mapping[str, Any]],
    *,
    base: Path,
    images: Sequence[Path],
    count_tokens: Callable[[str], int],
) -> tuple[Finding, ...]:
    """Return all findings, errors first. `images` are absolute, `base` is what keys start from."""
    findings = [
        *_key_findings(entries, base, images),
        *_shared_files(images),
        *_text_findings(entries, count_tokens),
        *_spelling_findings(entries),
    ]
    return tuple(sorted(findings, key=lambda finding: not finding.is_error))


def tag_frequencies(entries: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Return how many entries have each tag, most frequent first, equals by alphabet."""
    counts: Counter[str] = Counter()
    for entry in entries.values():
        counts.update(set(split_tags(entry.get("tags") or "")))
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def word_frequencies(entries: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Return how many captions have each word, most frequent first, equals by alphabet."""
    counts: Counter[str] = Counter()
    for entry in entries.values():
        counts.update(set(re.findall(r"[\w'-]+", (entry.get("caption") or "").lower())))
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def points_outside(key: str) -> bool:
    """Tell whether a relative key climbs out of its folder."""
    return os.path.normpath(key.replace("\\", "/")).startswith("..")


def _key_findings(
    entries: Mapping[str, Mapping[str, Any]], base: Path, images: Sequence[Path]
) -> Iterator[Finding]:
    by_stem: dict[Path, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image.with_suffix("")].append(image)
    known = set(images)
    seen: dict[Path, str] = {}
    with_words: set[Path] = set()
    for key, entry in entries.items():
        path = Path(os.path.normpath(base / key))
        if points_outside(key):
            what = f"points outside {base}; no image is taken from there"
            yield Finding(kind="key outside the folder", where=key, what=what, is_error=True)
            continue
        meant = [path] if path in known else by_stem.get(path, [])
        if not meant and is_image(path.name) and path.is_file():
            meant = [path]
        if not meant:
            yield Finding(
                kind="words without image", where=key, what=f"no image {path}", is_error=True
            )
        for image in meant:
            if image in seen:
                what = f'"{seen[image]}" stands for the same image'
                yield Finding(kind="duplicate key", where=key, what=what, is_error=True)
            seen[image] = key
            if has_words(entry):
                with_words.add(image)
    for image in images:
        if image not in with_words:
            what = "has an entry with neither caption nor tags" if image in seen else "has no entry"
            yield Finding(kind="image without words", where=str(image), what=what, is_error=True)


def _shared_files(images: Sequence[Path]) -> Iterator[Finding]:
    for notice in shared_stem_notices(images):
        yield Finding(kind="shared stem", where=notice.where, what=notice.what)
    by_size: dict[int, list[Path]] = defaultdict(list)
    for image in images:
        if image.is_file():
            by_size[image.stat().st_size].append(image)
    for same_size in by_size.values():
        first_of: dict[bytes, Path] = {}
        for image in same_size if len(same_size) > 1 else ():
            first = first_of.setdefault(_content_digest(image), image)
            if first is not image:
                what = f"the same file as {first}"
                yield Finding(kind="duplicate image", where=str(image), what=what)


def _content_digest(path: Path) -> bytes:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def _text_findings(
    entries: Mapping[str, Mapping[str, Any]], count_tokens: Callable[[str], int]
) -> Iterator[Finding]:
    by_caption: dict[str, list[str]] = defaultdict(list)
    for key, entry in entries.items():
        caption, tags = entry.get("caption") or "", entry.get("tags") or ""
        if caption:
            by_caption[caption].append(key)
        # The way that training joins them: no space behind the comma.
        num_tokens = count_tokens(",".join(text for text in (caption, tags) if text))
        over = [limit for limit in TOKEN_LIMITS if num_tokens > limit]
        if over:
            what = f"{num_tokens} tokens; what is beyond max_token_length is cut"
            yield Finding(kind=f"over {over[-1]} tokens", where=key, what=what)
        odd = sorted({name for text in (caption, tags) for name in _odd_characters(text)})
        if odd:
            yield Finding(kind="odd character", where=key, what=", ".join(odd))
        twice = [tag for tag, count in Counter(split_tags(tags)).items() if count > 1]
        if twice:
            yield Finding(kind="duplicate tag", where=key, what=", ".join(twice))
    for caption, keys in by_caption.items():
        if len(keys) > 1:
            what = f"{len(keys)} images have this caption: {caption}"
            yield Finding(kind="same caption", where=keys[0], what=what)


def _odd_characters(text: str) -> Iterator[str]:
    for character in set(text):
        category = unicodedata.category(character)
        strange = category in ("Cc", "Cf", "Co", "Cs", "Cn") and character != "\n"
        if strange or _ODD.match(character):
            name = unicodedata.name(character, "no name")
            yield f"U+{ord(character):04X} ({name.lower()})"


def _spelling_findings(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    spellings: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for tag, count in tag_frequencies(entries):
        plain = unicodedata.normalize("NFKC", tag).casefold()
        # A tag of signs only, such as ^_^, is compared as it is.
        plain = re.sub(r"[\s_-]+", "", plain) if re.search(r"[^\W_]", plain) else plain
        spellings[plain].append((tag, count))
    for group in spellings.values():
        if len(group) > 1:
            what = ", ".join(f'"{tag}" ({count})' for tag, count in group)
            yield Finding(kind="tag spelling", where=group[0][0], what=what)
