"""Values as given, turned into values as declared, with a message for each that does not fit.

In: a model and, for some of its fields, what was given and where. Out: typed values, and problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sdft.config.document import quoted_path
from sdft.config.paths import meant_path, windows_problem
from sdft.config.settings import Setting, setting_named
from sdft.errors import Problem, nearest
from sdft.urls import UrlPath, holds_credentials, is_url
from sdft.windows import is_windows

PATH_OR_WORD = {"resume": ("auto",), "metadata_thumbnail": ("data:",)}
"""Settings that hold a path, or a text that begins with one of these words."""

_ESCAPES = {"\a": r"\a", "\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r"}
_ESCAPES |= {"\x1b": r"\e"}


TAKES_URL = (
    "image_dir",
    "metadata_file",
    "output_dir",
    "cache_dir",
    "resume",
    "train_data_dir",
    "in_json",
)
"""Paths that may be on an object store; the last two are names of the command line for images."""

MAX_PATH_CHARACTERS = 4095
MAX_NAME_CHARACTERS = 255
"""Longer ones end in an error of the system, on Linux as on Windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One value that a person gave."""

    value: Any
    where: str
    """`file:line` or `--flag`."""
    folder: Path | None
    """The folder of the file it stands in; none for a flag."""


def resolve_path(text: str, cwd: Path, folder: Path | None) -> Path:
    """Return the absolute path: from the current folder if it exists there, else from `folder`.

    A path that exists in neither place is taken from the current folder.
    """
    if is_url(text):
        return UrlPath(text)
    here = cwd.absolute()
    base = folder.absolute() if folder is not None else None
    return meant_path(text, here, base, home=Path.home, exists=Path.exists)


def typed_values(
    model: type[BaseModel], given: Mapping[str, Given], cwd: Path
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the typed values of what fits, and a problem for each value that does not."""
    problems: list[Problem] = []
    raw: dict[str, Any] = {}
    for name, one in given.items():
        setting = setting_named(model, name)
        assert setting is not None, f"{model.__name__} has no setting {name}"
        problem = _problem_before(setting, one)
        if problem is None:
            raw[name] = _prepared(setting, one, cwd)
        else:
            problems.append(problem)
    try:
        typed = model.model_validate(raw)
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors(include_url=False)}
        for name in wrong:
            setting = setting_named(model, name)
            assert setting is not None
            problems.append(_misfit(setting, given[name]))
        typed = model.model_validate({k: v for k, v in raw.items() if k not in wrong})
        raw = {name: value for name, value in raw.items() if name not in wrong}
    return {name: getattr(typed, name) for name in raw}, problems


def _problem_before(setting: Setting, one: Given) -> Problem | None:
    """Return what is wrong with a value that pydantic would let pass."""
    value = one.value
    # Python's true is a 1, which nobody means where a number is wanted.
    if isinstance(value, bool) and setting.type in (int, float):
        return _misfit(setting, one)
    if setting.is_path or setting.name in PATH_OR_WORD:
        return _path_problem(setting, one)
    return None


def _path_problem(setting: Setting, one: Given) -> Problem | None:
    value = one.value
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        return _misfit(setting, one)
    if not value.strip():
        return Problem(
            f"{setting.name} is empty",
            one.where,
            "give a path or leave it out",
            "empty_path",
            {"name": setting.name},
        )
    if any(ord(character) < 32 for character in value):
        raw = "".join(_ESCAPES.get(character, character) for character in value)
        return Problem(
            f"{setting.name} holds a tab, line end or another control character: {value!r}",
            one.where,
            quoted_path(raw) if one.folder is not None else "",
            "control_character",
            {"name": setting.name, "value": repr(value)},
        )
    if is_url(value) and (problem := _url_problem(setting, value, one.where)) is not None:
        return problem
    if is_windows() and (problem := windows_problem(setting.name, value, one.where)) is not None:
        return problem
    if value.startswith(("~/", "~\\")) and not _has_home():
        return Problem(
            f"{setting.name} starts at the home folder, and this system knows none: {value}",
            one.where,
            "write the whole path",
            "no_home_folder",
            {"name": setting.name, "path": value},
        )
    parts = value.replace("\\", "/").split("/")
    if len(value) > MAX_PATH_CHARACTERS or max(map(len, parts)) > MAX_NAME_CHARACTERS:
        return Problem(f"{setting.name} is longer than a path can be", one.where)
    if any(0xD800 <= ord(character) < 0xE000 for character in value):
        return Problem(
            f"{setting.name} is not valid Unicode: {value!r}", one.where, "rename the file"
        )
    return None


def _has_home() -> bool:
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def _url_problem(setting: Setting, url: str, where: str) -> Problem | None:
    if setting.name not in TAKES_URL:
        return Problem(
            f"{setting.name} cannot be a URL",
            where,
            f"{', '.join(TAKES_URL[:5])} can; give a path",
        )
    if setting.name in ("output_dir", "cache_dir") and url.lower().startswith("http"):
        return Problem(
            f"{setting.name} cannot be on a web server: nothing is written there",
            where,
            "give s3://, gs:// or a path",
        )
    if holds_credentials(url):
        # Without the value: it would stand in every log.
        return Problem(
            f"{setting.name} is a URL with a user or a query, where passwords and signatures stand",
            where,
            "give it without; credentials come from the environment or the store's own profile",
        )
    return None


def _prepared(setting: Setting, one: Given, cwd: Path) -> Any:
    """Return a value as the model can take it: paths absolute, numbers of a closed list as such."""
    value = one.value
    if setting.is_path:
        return resolve_path(str(value), cwd, one.folder)
    if setting.name in PATH_OR_WORD:
        is_word = str(value).startswith(PATH_OR_WORD[setting.name])
        return value if is_word else str(resolve_path(str(value), cwd, one.folder))
    if setting.type is int and setting.choices and isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, list):
        return tuple(value)
    return value


def _misfit(setting: Setting, one: Given) -> Problem:
    value = one.value
    shown = f'"{value}"' if isinstance(value, str) else _shown(value)
    fix = nearest(value, setting.choices) if isinstance(value, str) and setting.choices else ""
    return Problem(
        f"{setting.name} must be {setting.wanted}; {shown} is not",
        one.where,
        fix,
        "wrong_value",
        {"name": setting.name, "wanted": setting.wanted, "shown": shown},
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 64:
        # Python writes no number of more than 4,300 digits.
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
