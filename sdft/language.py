"""Every word that a screen or a command shows, in English and Japanese.

Words of the interface are in `strings/<language>.toml`, by name; both files have the same names.
Sentences of the engine (errors, `sdft doctor`) stand in the code in English, which scripts, logs
and run folders always get; `strings/messages.<language>.toml` has them by their keys, and
`strings/sentences.<language>.toml` those that have none by their English words, as gettext does.
What the declarations of settings say (units, ranges) is in `strings/phrases.<language>.toml`.
Words that come from a run's files (notices, paths, captions) are shown as they are.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from unicodedata import east_asian_width

from sdft import windows
from sdft.errors import Problem

LANGUAGES = ("en", "ja")
"""The first one is used where nothing else is asked for."""

PLACE = "{}"
"""Stands for a value in an English sentence; the other language's has the number of the value."""

VAGUE = 12
"""A sentence with fewer letters of its own fits half sentences too, unless values are names."""

_FOLDER = Path(__file__).parent / "strings"


def language_of(environment: Mapping[str, str]) -> str:
    """Return the language that `SDFT_LANG`, the locale or Windows itself asks for."""
    for variable in ("SDFT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        asked = environment.get(variable, "").lower()[:2]
        if asked:
            return asked if asked in LANGUAGES else LANGUAGES[0]
    return "ja" if windows.speaks_japanese() else LANGUAGES[0]


def language_for(environment: Mapping[str, str], encoding: str | None) -> str:
    """Return the language to print in where the stream can show its letters; else English."""
    language = language_of(environment)
    try:
        catalogue(language)["common.error"].encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return LANGUAGES[0]
    return language


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return all words of one language by their dotted names."""
    with (_FOLDER / f"{language}.toml").open("rb") as file:
        return dict(_flat(tomllib.load(file), ""))


def _flat(table: Mapping[str, object], prefix: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs


@cache
def messages(language: str) -> Mapping[str, str]:
    """Return the engine's sentences in another language than English, by dotted names."""
    file = _FOLDER / f"messages.{language}.toml"
    return dict(_flat(tomllib.loads(file.read_text("utf-8")), "")) if file.exists() else {}


@cache
def _sentences(language: str) -> tuple[Mapping[str, str], tuple[tuple[list[str], str], ...]]:
    """Return sentences by their English ones: whole ones, and those with places for values.

    The latter are split at their places; the most definite ones come first.
    """
    file = _FOLDER / f"sentences.{language}.toml"
    said = tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    whole = {english: other.format() for english, other in said.items() if PLACE not in english}
    parts = [(key.split(PLACE), other) for key, other in said.items() if PLACE in key]
    return whole, tuple(sorted(parts, key=lambda pair: -sum(map(len, pair[0]))))


def _values_in(sentence: str, parts: Sequence[str]) -> list[str] | None:
    """Return what stands between the parts of a sentence, None where it has other parts."""
    first, *inner, last = parts
    end = len(sentence) - len(last)
    if not (sentence.startswith(first) and sentence.endswith(last) and end >= len(first)):
        return None
    values, begin = [], len(first)
    for part in inner:
        place = sentence.find(part, begin, end)
        if place < 0:
            return None
        values.append(sentence[begin:place])
        begin = place + len(part)
    values.append(sentence[begin:end])
    is_vague = sum(map(len, parts)) < VAGUE
    return None if is_vague and not all(map(_is_name_or_list, values)) else values


def _is_name_or_list(value: str) -> bool:
    return all(" " not in one for one in value.split(", "))


@cache
def _hints(language: str) -> Mapping[str, str]:
    """Return the settings' help in another language than that of their declarations."""
    file = _FOLDER / f"hints.{language}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


@cache
def _phrases(language: str) -> Sequence[tuple[re.Pattern[str], str]]:
    """Return patterns of English phrases, each with its words in another language."""
    file = _FOLDER / f"phrases.{language}.toml"
    rows = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return [(_pattern(english), other) for english, other in rows.items()]


def _pattern(english: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", english)
    named = (f"(?P<{part}>.+)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile("".join(named))


class Words:
    """Call it with a name and the values that the sentence has places for."""

    def __init__(self, language: str) -> None:
        assert language in LANGUAGES, f"no words in {language}"
        self.language = language
        self._catalogue = catalogue(language)

    def __call__(self, name: str, **values: object) -> str:
        return self._catalogue[name].format_map(values)

    def __contains__(self, name: str) -> bool:
        return name in self._catalogue

    def hint(self, setting: str, declared: str) -> str:
        """Return the one-line help of a setting; what its declaration says where there is none."""
        return _hints(self.language).get(setting, declared)

    def phrase(self, declared: str) -> str:
        """Return a setting's unit, range or kind of value; in English where there is no other."""
        for pattern, other in _phrases(self.language):
            found = pattern.fullmatch(declared)
            if found:
                return other.format_map({k: self.phrase(v) for k, v in found.groupdict().items()})
        return declared

    def problem(self, problem: Problem) -> Problem:
        """Return a problem in this language; in English where there is no other sentence."""

        values = dict(problem.values)
        if "wanted" in values:
            values["wanted"] = self.phrase(str(values["wanted"]))

        def told(part: str) -> str:
            return self.message(f"error.{problem.key}.{part}", values)

        return replace(
            problem,
            what=told("what") or self.sentence(problem.what),
            where=told("where") or problem.where,
            fix=told("fix") or self._nearest(self.sentence(problem.fix)),
        )

    def sentence(self, english: str) -> str:
        """Return a sentence of the engine that has no key, found by its English words."""
        whole, with_places = _sentences(self.language)
        if english in whole:
            return whole[english]
        for parts, other in with_places:
            values = _values_in(english, parts)
            if values is not None:
                return other.format(*values)
        return english

    def _nearest(self, fix: str) -> str:
        """Return advice that only gives the nearest name, in this language."""
        match = re.fullmatch(r"did you mean (.+)\?", fix)
        return self("common.did_you_mean", nearest=match[1]) if match else fix

    def note(self, key: str, values: Mapping[str, object], declared: str) -> str:
        """Return the note of a finding; what is declared where there is no other sentence."""
        return self.message(f"finding.{key}", values) or declared

    def message(self, name: str, values: Mapping[str, object]) -> str:
        """Return one of the engine's sentences, or nothing where it is said in English."""
        return messages(self.language).get(name, "").format_map(values)

    def known(self, name: str) -> str:
        """Return the words of a name, or the name where the catalogue has none."""
        return self._catalogue.get(name, name)


def cells(text: str) -> int:
    """Return how many columns of a terminal text takes; East Asian letters take two."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, width: int) -> str:
    """Return text with spaces behind it up to a number of columns."""
    return text + " " * (width - cells(text))
