"""Every word that a screen shows, in English and Japanese.

The words are in `strings/<language>.toml`, by name; both files have the same names. Words that come
from a run's files (notices, paths, captions) are shown as they are, in no other language.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "ja")
"""The first one is used where nothing else is asked for."""

_FOLDER = Path(__file__).parent / "strings"


def language_of(environment: Mapping[str, str]) -> str:
    """Return the language that `SDFT_LANG` or the locale asks for."""
    for variable in ("SDFT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        asked = environment.get(variable, "").lower()[:2]
        if asked:
            return asked if asked in LANGUAGES else LANGUAGES[0]
    return LANGUAGES[0]


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
def _hints(language: str) -> Mapping[str, str]:
    """Return the settings' help in another language than that of their declarations."""
    file = _FOLDER / f"hints.{language}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


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

    def known(self, name: str) -> str:
        """Return the words of a name, or the name where the catalogue has none."""
        return self._catalogue.get(name, name)
