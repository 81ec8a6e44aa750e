"""JSON Schema of both kinds of file, for editors that complete and check while one types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from sdft.config.dataset import DatasetSettings, SourceSettings, SubsetSettings
from sdft.config.names import FLAG_TO_KEY
from sdft.config.refused import NEEDLESS, REFUSED
from sdft.config.settings import Setting, settings_of
from sdft.config.training import TrainingSettings

_TYPES = {bool: "boolean", int: "integer", float: "number"}

_SPECIAL: dict[str, dict[str, Any]] = {
    "resolution": {
        "anyOf": [
            {"type": "integer", "exclusiveMinimum": 0},
            {"type": "string"},
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        ]
    },
    "face_crop_aug_range": {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        ]
    },
    "lr_warmup_steps": {"type": ["number", "string"]},
    "lr_decay_steps": {"type": ["number", "string"]},
    "max_train_time": {"type": ["number", "string"]},
}
"""Settings that are written in more than one form."""


def json_schema(kind: Literal["config", "dataset"] = "config") -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of config.toml or of dataset.toml."""
    tables = {
        "general": _table(_on_level("G")),
        "datasets": {"type": "array", "items": _dataset_table()},
    }
    properties: dict[str, Any] = tables
    if kind == "config":
        flat = [*settings_of(TrainingSettings), *settings_of(SourceSettings), *_on_level("G")]
        properties = {setting.name: _property(setting) for setting in flat}
        by_key = {key: name for name, key in FLAG_TO_KEY.items()}
        for setting in _on_level("G"):
            if setting.name in by_key:
                properties[by_key[setting.name]] = _property(setting)
        properties |= tables
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"sdft {kind}.toml",
        "type": "object",
        "properties": properties,
        # Sections of a config are free in name; a dataset file has the two tables only.
        "additionalProperties": {"type": "object"} if kind == "config" else False,
    }


def _dataset_table() -> dict[str, Any]:
    table = _table(_on_level("D"))
    table["properties"]["subsets"] = {"type": "array", "items": _table(_on_level("S"))}
    return table


def _on_level(level: str) -> list[Setting]:
    by_name = {
        setting.name: setting
        for model in (DatasetSettings, SubsetSettings)
        for setting in settings_of(model)
        if level in setting.levels and setting.name not in REFUSED
    }
    return list(by_name.values())


def _table(settings: Iterable[Setting]) -> dict[str, Any]:
    properties = {setting.name: _property(setting) for setting in settings}
    properties |= {name: {"description": why} for name, why in NEEDLESS.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _property(setting: Setting) -> dict[str, Any]:
    if setting.name in _SPECIAL:
        shape = dict(_SPECIAL[setting.name])
    else:
        shape = {"type": _TYPES.get(setting.type, "string")} | setting.bounds()
        if setting.choices and not setting.open_choices:
            shape["enum"] = [setting.type(choice) for choice in setting.choices]
        if setting.is_list:
            shape = {"type": "array", "items": shape}
    unit = f" [{setting.unit}]" if setting.unit else ""
    shape["description"] = setting.help + unit
    if isinstance(setting.default, bool | int | float | str):
        shape["default"] = setting.default
    return shape
