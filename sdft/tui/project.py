"""Which two files a wizard works on, and what new ones begin with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sdft.config.values import resolve_path
from sdft.config.write import toml_value
from sdft.errors import UserError
from sdft.tui.draft import Draft, FileText, file_text
from sdft.tui.draft_values import values_in

DATASET_NAME = "dataset.toml"
CONFIG_NAME = "config.toml"
FIRST_PRESET = "sd15-12gb"

DATASET_TEMPLATE = """\
# Which images are trained on. sd-scripts reads this file too.
[general]
enable_bucket = true
caption_extension = ".txt"

[[datasets]]
resolution = 512
batch_size = 1
"""

CONFIG_TEMPLATE = """\
# How the model is trained. Every line is also an option: sdft train --help-all
preset = {preset}
dataset_config = {dataset}

# Results go here.
output_dir = {output}
output_name = {name}
"""


def opened(path: Path | None, cwd: Path) -> Draft:
    """Return the files that a path means: a dataset file, a config, a folder, or none yet.

    Raises: ConfigError where one cannot be read or has a mistake of TOML; UserError where the
        path is of another kind.
    """
    if path is None or (cwd / path).is_dir():
        return _in_folder(cwd / path if path is not None else cwd)
    path = Path(os.path.abspath(cwd / path))
    if path.suffix.lower() != ".toml":
        raise UserError(
            what="the wizard writes TOML; this is another kind of file",
            where=str(path),
            fix="name a dataset.toml, a config.toml, or a folder",
        )
    first = file_text(path)
    if first.original is not None and _is_config(values_in(first.text)):
        return _beside_config(first, cwd)
    dataset = first if first.original is not None else file_text(path, DATASET_TEMPLATE)
    return _beside_dataset(dataset)


def _in_folder(folder: Path) -> Draft:
    config = folder / CONFIG_NAME
    if config.is_file():
        read = file_text(config)
        if _is_config(values_in(read.text)):
            return _beside_config(read, folder)
    return _beside_dataset(file_text(folder / DATASET_NAME, DATASET_TEMPLATE))


def _is_config(values: Any) -> bool:
    return bool(values.keys() - {"general", "datasets"})


def _beside_config(config: FileText, cwd: Path) -> Draft:
    """Find the dataset file that a config names, or the one inside it."""
    values = values_in(config.text)
    if "datasets" in values:
        return Draft(config=config, dataset=None)
    flat = {key: value for table in (values, *values.values()) if isinstance(table, dict)
            for key, value in table.items()}  # fmt: skip
    named = flat.get("dataset_config")
    if isinstance(named, str) and named.strip():
        path = resolve_path(named, cwd, config.path.parent)
        return Draft(config=config, dataset=file_text(path, DATASET_TEMPLATE))
    dataset = file_text(config.path.parent / DATASET_NAME, DATASET_TEMPLATE)
    draft = Draft(config=config, dataset=dataset)
    return draft.with_value("config", ("dataset_config",), toml_value(dataset.path.name))


def _beside_dataset(dataset: FileText) -> Draft:
    """Find the config that names a dataset file, or begin one."""
    folder = dataset.path.parent
    name = CONFIG_NAME if dataset.path.name == DATASET_NAME else f"{dataset.path.stem}-config.toml"
    return Draft(config=file_text(folder / name, _new_config(dataset.path)), dataset=dataset)


def _new_config(dataset: Path) -> str:
    folder = dataset.parent
    return CONFIG_TEMPLATE.format(
        preset=toml_value(FIRST_PRESET),
        dataset=toml_value(dataset.name),
        output=toml_value(str(folder / "output")),
        name=toml_value(safe_name(folder.name)),
    )


def safe_name(name: str) -> str:
    """Return a name that every system takes for a file."""
    kept = "".join(c for c in name if c.isprintable() and c not in '/\\:*?"<>|').strip(" .")
    return kept[:80] or "model"
