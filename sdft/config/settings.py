"""One setting, declared once.

In: a field of a pydantic model, made by `setting(...)`. Out: `settings_of(Model)`, one `Setting`
record a field, from which come flags, the wizard's fields, JSON Schema, tables and messages.
"""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

_FACTS = "sdft"
"""Key of a field's `json_schema_extra` under which its `_Facts` stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What pydantic's own field record has no place for."""

    help: str
    group: str
    unit: str | None
    common: bool
    choices: tuple[str, ...]
    open_choices: bool
    ge: float | None
    gt: float | None
    le: float | None
    lt: float | None
    flag: str | None
    levels: str
    decides: bool
    wanted: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, as faces and messages need it."""

    name: str
    """The key in TOML."""
    flag: str
    """The command line's name without dashes; another than `name` only where sd-scripts does so."""
    type: type
    """bool, int, float, str or Path. Of a list: the type of its entries."""
    default: Any
    unit: str | None
    choices: tuple[str, ...]
    """All names that are allowed, or, with `open_choices`, the known ones. Empty: no list."""
    open_choices: bool
    """A dotted class path is allowed besides the choices."""
    range: str
    """In words, such as `1 or more`; empty where there is no limit."""
    help: str
    group: str
    common: bool
    """Stands in the short `--help`."""
    is_flag: bool
    """True or false: on the command line it stands without a value."""
    is_list: bool
    """Takes several values."""
    is_path: bool
    levels: str
    """Where in a dataset file it may stand: G [general], D [[datasets]], S [[datasets.subsets]].

    Empty for training settings.
    """
    decides: bool
    """Another value gives another result, so it belongs to the config's digest."""
    wanted: str
    """What a value must be, in words: `a whole number, 1 or more`."""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def bounds(self) -> dict[str, float]:
        """Return the limits under JSON Schema's names."""
        named = {
            "minimum": self.ge,
            "exclusiveMinimum": self.gt,
            "maximum": self.le,
            "exclusiveMaximum": self.lt,
        }
        return {name: limit for name, limit in named.items() if limit is not None}


def setting(
    default: Any,
    *,
    help: str,
    group: str,
    unit: str | None = None,
    common: bool = False,
    choices: Sequence[str] = (),
    open_choices: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    flag: str | None = None,
    levels: str = "",
    decides: bool = True,
    wanted: str | None = None,
) -> Any:
    """Declare a setting: the value of a pydantic field.

    `choices` is for open lists of names; a closed list is the field's `Literal` type.
    """
    facts = _Facts(
        help=help,
        group=group,
        unit=unit,
        common=common,
        choices=tuple(choices),
        open_choices=open_choices,
        ge=ge,
        gt=gt,
        le=le,
        lt=lt,
        flag=flag,
        levels=levels,
        decides=decides,
        wanted=wanted,
    )
    bounds = {
        key: value for key in ("ge", "gt", "le", "lt") if (value := getattr(facts, key)) is not None
    }
    extra: Any = {_FACTS: facts}
    return Field(default, json_schema_extra=extra, **bounds)


@cache
def settings_of(model: type[BaseModel]) -> tuple[Setting, ...]:
    """Return the settings that a model declares, in the order of declaration.

    Fields that are not made by `setting` are left out.
    """
    found = []
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and isinstance(extra.get(_FACTS), _Facts):
            facts: Any = extra[_FACTS]
            found.append(_setting_of(name, field, facts))
    return tuple(found)


@cache
def setting_named(model: type[BaseModel], name: str) -> Setting | None:
    """Return one setting of a model by its TOML key."""
    return next((setting for setting in settings_of(model) if setting.name == name), None)


def _setting_of(name: str, field: FieldInfo, facts: _Facts) -> Setting:
    kind, is_list, literals = _kind_of(field.annotation)
    range_words = _range_words(facts)
    choices = literals or facts.choices
    wanted = facts.wanted or _wanted(kind, choices, facts.open_choices, range_words)
    return Setting(
        name=name,
        flag=facts.flag or name,
        type=kind,
        default=field.default,
        unit=facts.unit,
        choices=choices,
        open_choices=facts.open_choices,
        range=range_words,
        help=facts.help,
        group=facts.group,
        common=facts.common,
        is_flag=kind is bool,
        is_list=is_list,
        is_path=kind is Path,
        levels=facts.levels,
        decides=facts.decides,
        ge=facts.ge,
        gt=facts.gt,
        le=facts.le,
        lt=facts.lt,
        wanted=f"a list, each entry {wanted}" if is_list and not facts.wanted else wanted,
    )


def _kind_of(annotation: Any) -> tuple[type, bool, tuple[str, ...]]:
    """Return (base type, whether it is a list, the names of a Literal)."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kinds = [_kind_of(part) for part in arguments if part is not types.NoneType]
        # `int | float` is a number that keeps its kind.
        return max(kinds, key=lambda kind: kind[0] is float)
    if origin is Literal:
        return type(arguments[0]), False, tuple(str(choice) for choice in arguments)
    if origin is tuple:
        return _kind_of(arguments[0])[0], True, ()
    assert annotation in (bool, int, float, str, Path), f"no setting can be a {annotation}"
    return annotation, False, ()


def _range_words(facts: _Facts) -> str:
    low, high = facts.ge, facts.le
    if low is not None and high is not None:
        return f"from {_number(low)} to {_number(high)}"
    words = []
    if low is not None:
        words.append(f"{_number(low)} or more")
    if facts.gt is not None:
        words.append(f"more than {_number(facts.gt)}")
    if high is not None:
        words.append(f"{_number(high)} or less")
    if facts.lt is not None:
        words.append(f"less than {_number(facts.lt)}")
    return " and ".join(words)


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def _wanted(kind: type, choices: tuple[str, ...], open_choices: bool, range_words: str) -> str:
    if choices:
        return f"one of {', '.join(choices)}" + (
            " or a class path with dots" if open_choices else ""
        )
    nouns = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
    }
    return nouns[kind] + (f", {range_words}" if range_words else "")
