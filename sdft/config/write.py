"""A config as text: the resolved TOML of a run folder, and the digest of what decides its result.

In: a Config. Out: text; nothing is written to disk here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.load import Config
from sdft.config.merge import ONLY_WITH_CAPTION_FILES
from sdft.config.refused import REFUSED
from sdft.config.settings import settings_of
from sdft.config.shorthands import SHORTHANDS


def resolved_toml(config: Config) -> str:
    """Return TOML with every setting and absolute paths, which loads back to an equal Config.

    Settings that are none are left out, since TOML has no word for none.
    """
    lines: list[str] = []
    group = ""
    for setting in settings_of(type(config.training)):
        value = getattr(config.training, setting.name)
        if value is None or setting.name in SHORTHANDS:
            continue
        if setting.group != group:
            lines += ["", f"# {setting.group}"] if lines else [f"# {setting.group}"]
            group = setting.group
        lines.append(f"{setting.name} = {toml_value(value)}")
    for dataset in config.datasets:
        lines += ["", "[[datasets]]", *_pairs(dataset)]
        for subset in dataset.subsets:
            without = ONLY_WITH_CAPTION_FILES if subset.metadata_file is not None else ()
            lines += ["", "[[datasets.subsets]]", *_pairs(subset, without)]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(entry) for entry in value)}]"
    text = str(value)
    # Single quotes keep a Windows path readable, but hold no quote and no control character.
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def in_ascii(text: str) -> str:
    """Return TOML that this module wrote in ASCII alone.

    What is redirected into a file comes in the console's encoding, which TOML is not read in.
    """
    return _STRING.sub(lambda match: _ascii_string(match[0]), text)


_STRING = re.compile(r"'[^'\n]*'|\"(?:[^\"\\\n]|\\.)*\"")


def _ascii_string(string: str) -> str:
    if string.isascii():
        return string
    # Between single quotes nothing can be escaped.
    wide = json.dumps(string[1:-1], ensure_ascii=False) if string.startswith("'") else string
    return "".join(letter if letter.isascii() else _escaped(letter) for letter in wide)


def _escaped(letter: str) -> str:
    number = ord(letter)
    return f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"


def deciding_values(config: Config) -> dict[str, Any]:
    """Return the settings that decide the trained weights and the form of the saved model.

    Left out is what changes neither: where files go and under which name, the cadence of
    saves, states, samples and logs, resume and overwrite, and all that says only how the same
    numbers are computed (device, attention, gradient checkpointing, workers, where latents are
    cached, VAE batch size, deterministic). Two of these do change the last bits of a result
    (device, attention) but not what was asked for. The precision of the latents and of training
    stays in.
    """
    training = {
        setting.name: _plain(getattr(config.training, setting.name))
        for setting in settings_of(type(config.training))
        if setting.decides
    }
    datasets = [dataset.model_dump(mode="json") for dataset in config.datasets]
    return {"training": training, "datasets": datasets}


def config_digest(config: Config) -> str:
    """Return 32 hex digits that are equal for configs with equal deciding values.

    A seed that was not given counts as such: take the digest before one is drawn.
    """
    text = json.dumps(deciding_values(config), sort_keys=True)
    return blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def named_values(config: Config) -> dict[str, Any]:
    """Return the deciding settings by their names, as plain values.

    Those of a dataset begin with its place, such as `datasets.0.resolution`.
    """
    flat = _flat("", deciding_values(config))
    return {name.removeprefix("training."): value for name, value in flat}


def _pairs(table: DatasetSettings | SubsetSettings, without: tuple[str, ...] = ()) -> list[str]:
    model: type[BaseModel] = type(table)
    values = {setting.name: getattr(table, setting.name) for setting in settings_of(model)}
    return [
        f"{name} = {toml_value(value)}"
        for name, value in values.items()
        if value is not None and name not in without and name not in REFUSED
    ]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        entries = [(str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        entries = [(str(index), entry) for index, entry in enumerate(value)]
    else:
        yield name, value
        return
    for key, entry in entries:
        yield from _flat(f"{name}.{key}" if name else key, entry)
