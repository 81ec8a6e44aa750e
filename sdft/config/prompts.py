"""Files of prompts: what to draw, as sd-scripts writes them and with its mistakes said.

In: a .txt with flags behind each prompt, a .json list, or a .toml with [[prompt.subset]] tables.
Out: one Prompt a picture, or a ConfigError with every mistake, each with file and line.

Defects of sd-scripts that are not copied: a prompt that reads like a flag ("n the nun") is a
prompt; a key that stands in [prompt] and in a subset is no error, the subset's counts; a flag that
cannot be read, a size that does not fit and an unknown sampler are said, not dropped or changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft.config.choices import SAMPLERS, canonical
from sdft.config.document import parsed, shown
from sdft.config.positions import KeyPath, line_of
from sdft.errors import ConfigError, DataError, Problem, nearest
from sdft.files import read_text

MIN_SIDE_PX = 64
SIDE_STEP_PX = 8
"""The VAE turns 8 x 8 pixels into one latent cell."""

MAX_STEPS = 1000
"""The noise schedule has so many; also sd-scripts' limit."""

MAX_SEED = 2**63 - 1

DEFAULT_STEPS = 30
DEFAULT_SCALE = 7.5
"""Source: sd-scripts."""

FLAGS = {
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "sample_steps",
    "l": "scale",
    "ss": "sample_sampler",
}
"""Flag of a text line to the key that it has in JSON and TOML. Source: sd-scripts."""

FOREIGN = {
    "cn": "controlnet_image",
    "ctr": "controlnet_ratio",
    "g": "guidance_scale",
    "rcfg": "renorm_cfg",
    "fs": "flow_shift",
}
"""Flags and keys of sd-scripts for other kinds of model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One picture to draw, as far as the file says."""

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    """Pixels; none takes the size that the model was made for."""
    height: int | None = None
    seed: int | None = None
    """None leaves it to the run, which takes the same one each time."""
    sample_steps: int | None = None
    """None takes DEFAULT_STEPS."""
    scale: float | None = None
    """Classifier-free guidance; none takes DEFAULT_SCALE."""
    sample_sampler: str | None = None
    """None takes the setting of the same name."""
    where: str = ""
    """`file:line`."""


@dataclass(slots=True)
class _Entry:
    """The keys of one prompt, as text or as typed values, and where each stands."""

    where: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def read_prompts(path: Path, cwd: Path) -> tuple[Prompt, ...]:
    """Read a file of prompts.

    Raises: ConfigError with all mistakes; also where the file is missing or holds no prompt.
    """
    name = shown(path, cwd)
    problems: list[Problem] = []
    kind = path.suffix.lower()
    if kind in (".json", ".toml"):
        entries = list(_listed(path, name, kind, problems))
    elif kind == ".txt":
        entries = list(_lines(_text(path, name), name, problems))
    else:
        raise ConfigError(
            what="a file of prompts ends in .txt, .json or .toml", where=name, fix="rename it"
        )
    prompts = [_prompt(entry, problems) for entry in entries]
    if problems:
        raise ConfigError(problems=problems)
    if not prompts:
        raise ConfigError(what="there is no prompt in this file", where=name)
    return tuple(prompts)


def _text(path: Path, name: str) -> str:
    try:
        return read_text(path)
    except DataError as error:
        raise ConfigError(problems=error.problems) from error
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise ConfigError(what=what, where=name) from error


def _lines(text: str, name: str, problems: list[Problem]) -> Iterator[_Entry]:
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        if line.strip() and not line.startswith("#"):
            yield _line(line.strip(), f"{name}:{number}", problems)


def _line(line: str, where: str, problems: list[Problem]) -> _Entry:
    # A line of flags alone draws without a prompt.
    prompt, *parts = (" " + line if line.startswith("--") else line).split(" --")
    entry = _Entry(where=where, values={"prompt": prompt.strip()})
    for part in parts:
        flag, _, value = part.strip().partition(" ")
        _take_flag(flag, value.strip(), entry, problems)
    return entry


def _take_flag(flag: str, value: str, entry: _Entry, problems: list[Problem]) -> None:
    def problem(what: str, fix: str = "") -> None:
        problems.append(Problem(what, entry.where, fix))

    name = flag.lower()
    key = FLAGS.get(name)
    if name in FOREIGN:
        problem(f"--{flag} is for another kind of model", "remove it")
    elif key is None:
        known = [f"--{one}" for one in FLAGS]
        fix = (name and nearest(f"--{name}", known)) or f"known: {', '.join(known)}"
        problem(f"no flag --{flag}" if flag else "-- without a flag", fix)
    elif key in entry.values:
        problem(f"--{flag} stands twice", "remove one")
    elif not value:
        problem(f"--{flag} has no value", f"write it like --{flag} {_EXAMPLES[key]}")
    else:
        entry.values[key] = value
        entry.places[key] = f"--{flag}"


_EXAMPLES = {
    "negative_prompt": "blurry",
    "width": "512",
    "height": "512",
    "seed": "42",
    "sample_steps": "30",
    "scale": "7.5",
    "sample_sampler": "euler_a",
}


def _listed(path: Path, name: str, kind: str, problems: list[Problem]) -> Iterator[_Entry]:
    """Give the entries of a JSON list or of TOML's [prompt] and [[prompt.subset]]."""
    text = _text(path, name)
    content, lines = parsed(text, name, is_json=kind == ".json")

    def where(*path: str | int) -> str:
        line = line_of(lines, path)
        return f"{name}:{line}" if line else name

    if kind == ".toml" or isinstance(content, Mapping):
        yield from _tables(content, where, problems)
        return
    if not isinstance(content, list):
        problems.append(Problem("a list of prompts is wanted", name))
        return
    for number, one in enumerate(content):
        if isinstance(one, str):
            yield _line(one.strip(), where(number), problems)
        elif isinstance(one, Mapping):
            yield _entry({}, one, (number,), where)
        else:
            problems.append(Problem("a prompt is a text or an object", where(number)))


def _tables(content: Any, where: Any, problems: list[Problem]) -> Iterator[_Entry]:
    table = content.get("prompt")
    others = [key for key in content if key != "prompt"]
    problems += [Problem(f'unknown key "{key}"', where(key)) for key in others]
    if not isinstance(table, Mapping):
        problems.append(
            Problem("there is no table [prompt]", where(), "begin with [prompt], then its subsets")
        )
        return
    common = {key: value for key, value in table.items() if key != "subset"}
    subsets = table.get("subset", [{}] if "prompt" in common else [])
    if not isinstance(subsets, list) or not all(isinstance(one, Mapping) for one in subsets):
        problems.append(Problem("write each as [[prompt.subset]]", where("prompt", "subset")))
        return
    for number, subset in enumerate(subsets):
        yield _entry(common, subset, ("prompt", "subset", number), where)


def _entry(common: Mapping[str, Any], own: Mapping[str, Any], path: KeyPath, where: Any) -> _Entry:
    entry = _Entry(where=where(*path))
    for key, value in common.items():
        entry.values[key] = value
        entry.places[key] = where("prompt", key)
    for key, value in own.items():
        entry.values[key] = value
        entry.places[key] = where(*path, key)
    return entry


def _prompt(entry: _Entry, problems: list[Problem]) -> Prompt:
    """Return an entry's prompt; whatever is wrong goes to `problems`."""
    reader = _Reader(entry, problems)
    known = ("prompt", *FLAGS.values())
    for key in entry.values:
        if key in FOREIGN.values():
            reader.problem(key, f"{key} is for another kind of model", "remove it")
        elif key not in known:
            reader.problem(key, f'unknown key "{key}"', nearest(key, list(known)))
    if "prompt" not in entry.values:
        reader.problem("prompt", "there is no prompt", 'add prompt = "..."')
    return Prompt(
        prompt=reader.text("prompt"),
        negative_prompt=reader.text("negative_prompt"),
        width=reader.side("width"),
        height=reader.side("height"),
        seed=reader.whole("seed", 0, MAX_SEED),
        sample_steps=reader.whole("sample_steps", 1, MAX_STEPS),
        scale=reader.scale(),
        sample_sampler=reader.sampler(),
        where=entry.where,
    )


class _Reader:
    """Takes typed values out of an entry and says which do not fit."""

    def __init__(self, entry: _Entry, problems: list[Problem]) -> None:
        self._entry = entry
        self._problems = problems

    def problem(self, key: str, what: str, fix: str = "") -> None:
        place = self._entry.places.get(key, "")
        is_flag = place.startswith("--")
        where = self._entry.where if is_flag or not place else place
        self._problems.append(Problem(f"{place} {what}" if is_flag else what, where, fix))

    def text(self, key: str) -> str:
        value = self._entry.values.get(key, "")
        if not isinstance(value, str):
            self.problem(key, f"{key} must be text; {value!r} is not")
            return ""
        return value.strip()

    def whole(self, key: str, low: int, high: int) -> int | None:
        value = self._entry.values.get(key)
        if value is None:
            return None
        # Nobody who writes true for a number means 1.
        number = value if isinstance(value, int) and not isinstance(value, bool) else None
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,30}", value):
            number = int(value)
        if number is None:
            self.problem(key, f"must be a whole number; {value!r} is not")
            return None
        if not low <= number <= high:
            self.problem(key, f"must be from {low} to {high}; {number} is not")
            return None
        return number

    def side(self, key: str) -> int | None:
        side = self.whole(key, 1, 2**16)
        if side is not None and (side < MIN_SIDE_PX or side % SIDE_STEP_PX):
            floored = max(MIN_SIDE_PX, side // SIDE_STEP_PX * SIDE_STEP_PX)
            self.problem(
                key,
                f"must be a multiple of {SIDE_STEP_PX} px and at least {MIN_SIDE_PX};"
                f" {side} is not",
                f"use {floored} or {floored + SIDE_STEP_PX}",
            )
            return None
        return side

    def scale(self) -> float | None:
        value = self._entry.values.get("scale")
        if value is None:
            return None
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}(\.[0-9]*)?|\.[0-9]+", value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            self.problem("scale", f"must be a number, 0 or more; {value!r} is not")
            return None
        return float(value)

    def sampler(self) -> str | None:
        value = self._entry.values.get("sample_sampler")
        if value is None:
            return None
        name = canonical(str(value), SAMPLERS)
        if name not in SAMPLERS:
            fix = nearest(name, SAMPLERS) or f"known: {', '.join(SAMPLERS)}"
            self.problem("sample_sampler", f'no sampler "{value}"', fix)
            return None
        return name
