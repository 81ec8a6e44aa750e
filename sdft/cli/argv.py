"""Reads the words of a command line that has one option a setting.

In: the words and the options that exist. Out: the text of each option that was given; what a text
means is decided where settings are checked. The manners are argparse's, because the command lines
of sd-scripts were written for it: `--x y`, `--x=y`, several values after an option that is a list,
beginnings of a name that fit one option only. `-` and `_` in names are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdft.config.refused import LORA_ADVICE, LORA_NAMES
from sdft.errors import Problem, nearest

FLAG = "flag"
VALUE = "value"
VALUES = "values"
LOOSE = "loose"
"""Takes the words behind it up to the next option, except a CONFIG: an option that is only named
to be answered, so that nobody knows what it takes."""

_NEGATIVE_NUMBER = re.compile(r"-(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?%?(,.*)?")
_CONFIG_SUFFIXES = (".toml", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option as the help shows it and the reader understands it."""

    name: str
    """With `_` between its words."""
    takes: str = VALUE
    """`flag`, `value`, `values` or `loose`."""
    help: str = ""
    group: str = ""
    metavar: str = ""
    notes: str = ""
    """Default, unit and range, as the help shows them behind the sentence."""
    common: bool = True
    """Stands in `--help`, not only in `--help-all`."""
    hidden: bool = False
    """Stands in neither."""
    hyphens: bool = False
    """The help writes it as `--json-out`; settings are written as in files, `--output_dir`."""

    @property
    def spelling(self) -> str:
        return "--" + (self.name.replace("_", "-") if self.hyphens else self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a command line says."""

    config: Path | None
    values: Mapping[str, object]
    """By option name: True for a flag, else its text, or a tuple of texts for a list."""
    problems: tuple[Problem, ...]
    """Every mistake of the line."""


@dataclass(slots=True)
class _Reader:
    options: Mapping[str, Option]
    values: dict[str, object] = field(default_factory=dict)
    config: Path | None = None
    problems: list[Problem] = field(default_factory=list)

    def read(self, words: Sequence[str]) -> None:
        position = 0
        while position < len(words):
            word = words[position]
            position += 1
            if word == "--":
                for rest in words[position:]:
                    self.word(rest)
                return
            if not is_option(word):
                self.word(word)
                continue
            given, equals, text = word.partition("=")
            option = self.option(given)
            following = _values(words[position:])
            if option is None:
                # Its values belong to it; they are not stray words of their own.
                position += 0 if equals else _num_of_unknown(following)
            elif equals:
                self.values[option.name] = (text,) if option.takes == VALUES else text
            elif option.takes == LOOSE:
                number = _num_of_unknown(following)
                position += number
                self.values[option.name] = " ".join(following[:number]) or True
            elif option.takes == FLAG:
                self.values[option.name] = True
            elif option.takes == VALUES:
                position += len(following)
                self.list_option(option, following)
            elif following:
                position += 1
                self.values[option.name] = following[0]
            else:
                self.problems.append(
                    Problem("needs a value", option.spelling, key="option_needs_value")
                )

    def option(self, given: str) -> Option | None:
        """Return the option that a word names, or None after noting why there is none."""
        name = given.lstrip("-").replace("-", "_")
        exact = self.options.get(name) if given.startswith("--") else None
        if exact is not None:
            return exact
        fitting = [known for known in self.options if name and known.startswith(name)]
        if not given.startswith("--"):
            fitting = []
        if len(fitting) == 1:
            return self.options[fitting[0]]
        if fitting:
            names = ", ".join(self.options[known].spelling for known in sorted(fitting))
            self.problems.append(
                Problem(
                    "fits several options",
                    given,
                    f"one of {names}",
                    "option_fits_several",
                    {"names": names},
                )
            )
        else:
            self.problems.append(
                Problem(
                    "no such option",
                    given,
                    self.nearest_to(name) or "see --help-all",
                    "no_such_option",
                )
            )
        return None

    def nearest_to(self, name: str) -> str:
        if name in LORA_NAMES:
            return LORA_ADVICE
        guess = nearest(name, [name for name, option in self.options.items() if not option.hidden])
        known = re.fullmatch(r'did you mean "(.*)"\?', guess)
        return f"did you mean {self.options[known[1]].spelling}?" if known else ""

    def list_option(self, option: Option, following: Sequence[str]) -> None:
        configs = [word for word in following if _is_config(word)]
        if configs and self.config is None:
            self.problems.append(
                Problem(
                    f'"{configs[0]}" stands among the values of {option.spelling},'
                    " which takes every word up to the next option",
                    fix=f"put {configs[0]} first on the line",
                )
            )
        if following:
            self.values[option.name] = tuple(following)
        else:
            self.problems.append(Problem("needs one value or more", where=option.spelling))

    def word(self, word: str) -> None:
        """Take a word that belongs to no option: CONFIG, or a mistake."""
        if self.config is None and _is_config(word):
            self.config = Path(word)
            return
        fix = "an option's value stands right behind the option; CONFIG ends in .toml or .json"
        if self.config is not None and _is_config(word):
            fix = f"CONFIG is already {self.config}; give one"
        elif word.endswith(".py"):
            fix = "leave it out: sdft stands in its place"
        elif Path(word).is_dir():
            fix = f'for a folder of images write --train_data_dir "{word}"'
        what = "a word that belongs to no option"
        self.problems.append(Problem(what, f'"{word}"', fix, "stray_word"))


def read_line(words: Sequence[str], options: Sequence[Option]) -> Line:
    """Read a command line. Of an option given twice the last one counts."""
    reader = _Reader({option.name: option for option in options})
    reader.read(words)
    return Line(config=reader.config, values=reader.values, problems=tuple(reader.problems))


def is_option(word: str) -> bool:
    """Tell an option from a value; `-0.1`, `-` and `-5,3` are values, as is what has a space."""
    if not word.startswith("-") or word == "-":
        return False
    return " " not in word.partition("=")[0] and _NEGATIVE_NUMBER.fullmatch(word) is None


def _values(words: Sequence[str]) -> list[str]:
    """Return the words up to the next option."""
    values: list[str] = []
    for word in words:
        if is_option(word):
            break
        values.append(word)
    return values


def _num_of_unknown(following: Sequence[str]) -> int:
    """How many words to leave to an option that is not known: all but a CONFIG."""
    for number, word in enumerate(following):
        if _is_config(word):
            return number
    return len(following)


def _is_config(word: str) -> bool:
    return word.lower().endswith(_CONFIG_SUFFIXES)
