"""What a draft says of each setting, where it says it, and what is wrong with it. No screen.

The checks are those of the commands: `check` loads the draft as `sdft train` would load its files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from sdft.config.dataset import DatasetSettings, SourceSettings, SubsetSettings, dataset_settings
from sdft.config.document import Document, parsed, read_document, shown
from sdft.config.load import Config, load_config
from sdft.config.names import FLAG_TO_KEY
from sdft.config.positions import KeyPath, toml_lines
from sdft.config.preset import PRESETS
from sdft.config.preset import preset_document as read_preset
from sdft.config.settings import Setting, setting_named
from sdft.config.training import TrainingSettings
from sdft.config.write import toml_value
from sdft.errors import ConfigError, Problem
from sdft.tui.draft import CONFIG, DATASET, Draft, Role

Source = Literal["dataset", "config", "preset", "default"]

COPIED_FROM_PRESET = (
    "resolution", "batch_size", "enable_bucket", "min_bucket_reso", "max_bucket_reso",
)  # fmt: skip
"""The dataset file wins over a preset, so where it states these, choosing a preset changes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """The value that counts for a setting, and the place that gives it."""

    value: Any
    source: Source
    role: Role
    path: KeyPath
    """Where it stands, or where it would be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What loading a draft came to."""

    config: Config | None
    """None where there are problems."""
    problems: tuple[Problem, ...]
    notices: tuple[Problem, ...]
    fields: tuple[str, ...]
    """Of each problem, the setting that it is about; empty where it is about none."""
    datasets: tuple[int | None, ...]
    """Of each problem, the position of the dataset that it stands in; None outside of datasets."""

    def problem_of(self, name: str, dataset: int | None = None) -> Problem | None:
        """Return the first problem of a setting; of one dataset, those of others do not count."""
        for field, place, problem in zip(self.fields, self.datasets, self.problems, strict=True):
            if field == name and (dataset is None or place in (None, dataset)):
                return problem
        return None


def declared(name: str) -> Setting:
    """Return a setting by the name that TOML has for it."""
    for model in (TrainingSettings, SubsetSettings, DatasetSettings, SourceSettings):
        found = setting_named(model, name)
        if found is not None:
            return found
    raise KeyError(name)


@lru_cache(8)
def preset_document(name: str) -> Document:
    return read_preset(name)


@lru_cache(32)
def values_in(text: str) -> Mapping[str, Any]:
    """Return what a TOML text holds; nothing where it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def num_subsets(draft: Draft, dataset: int = 0) -> int:
    return len(_subsets(draft, dataset))


def num_datasets(draft: Draft) -> int:
    return len(_datasets(draft))


def dataset_names(draft: Draft) -> list[str]:
    """Return of each dataset what tells it from the others: its number, resolution and folders."""
    names = []
    for dataset in range(num_datasets(draft)):
        resolution = typed_of(stated(draft, "resolution", dataset=dataset).value)
        folders = ", ".join(Path(name).name for name in image_dirs(draft, dataset) if name)
        names.append(f"{dataset + 1}: {resolution} px  {folders}".rstrip())
    return names


def _datasets(draft: Draft) -> list[dict[str, Any]]:
    found = values_in(draft.file(DATASET).text).get("datasets", [])
    is_fit = isinstance(found, list) and all(isinstance(entry, dict) for entry in found)
    return found if is_fit else []


def _subsets(draft: Draft, dataset: int) -> list[dict[str, Any]]:
    datasets = _datasets(draft)
    return datasets[dataset].get("subsets", []) if dataset < len(datasets) else []


def image_dirs(draft: Draft, dataset: int = 0) -> list[str]:
    """Return the folders of a dataset's subsets, as they are written."""
    return [
        str(subset.get("image_dir") or subset.get("metadata_file") or "")
        for subset in _subsets(draft, dataset)
    ]


def stated(draft: Draft, name: str, *, subset: int = 0, dataset: int = 0) -> Stated:
    """Return a setting's value as the levels give it: subset, dataset, general, config, preset."""
    setting = declared(name)
    if setting.levels:
        for path in _levels(draft, setting, dataset, subset):
            table = _table(values_in(draft.file(DATASET).text), path[:-1])
            if name in table:
                return Stated(value=table[name], source="dataset", role=DATASET, path=path)
    top = values_in(draft.config.text)
    for key in dict.fromkeys((name, *(flag for flag, key in FLAG_TO_KEY.items() if key == name))):
        for path in ((key,), *((section, key) for section in _sections(top))):
            table = _table(top, path[:-1])
            if key in table and setting.levels != "S":
                return Stated(value=table[key], source="config", role=CONFIG, path=path)
    role, path = place_for(draft, name, subset=subset, dataset=dataset)
    preset = top.get("preset")
    if preset in PRESETS and name != "preset":
        values = preset_document(str(preset)).values
        if name in values:
            return Stated(value=values[name], source="preset", role=role, path=path)
    return Stated(value=setting.default, source="default", role=role, path=path)


def place_for(
    draft: Draft, name: str, *, subset: int = 0, dataset: int = 0
) -> tuple[Role, KeyPath]:
    """Return where a setting that stands nowhere yet is written."""
    setting = declared(name)
    if not setting.levels:
        return CONFIG, (name,)
    levels = _levels(draft, setting, dataset, subset)
    # What stands in [general] counts for every dataset.
    has_general = "general" in values_in(draft.file(DATASET).text) and num_datasets(draft) < 2
    wanted = [path for path in levels if path[0] == "general" and has_general]
    return DATASET, (wanted or [path for path in levels if path[0] != "general"])[-1]


def _levels(draft: Draft, setting: Setting, dataset: int, subset: int) -> list[KeyPath]:
    paths: list[KeyPath] = []
    if "S" in setting.levels and subset < num_subsets(draft, dataset):
        paths.append(("datasets", dataset, "subsets", subset, setting.name))
    if "D" in setting.levels:
        paths.append(("datasets", dataset, setting.name))
    if "G" in setting.levels:
        paths.append(("general", setting.name))
    return paths or [("datasets", dataset, "subsets", subset, setting.name)]


def _table(values: Any, path: KeyPath) -> Mapping[str, Any]:
    for key in path:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            return {}
    return values if isinstance(values, Mapping) else {}


def _sections(values: Mapping[str, Any]) -> list[str]:
    tables = [key for key, value in values.items() if isinstance(value, Mapping)]
    return [key for key in tables if not ("datasets" in values and key == "general")]


def literal_of(setting: Setting, typed: str) -> str | None:
    """Return typed text in TOML's words; None where nothing was typed.

    What does not fit the setting becomes text, so that the checks say what is wanted.
    """
    text = typed.strip()
    if not text:
        return None
    if text in ('""', "''"):
        # Nothing, on purpose: an empty field takes the key out of the file.
        return '""'
    if setting.is_flag or setting.type in (int, float) or setting.is_list:
        numbers = [part.strip() for part in text.replace("x", ",").split(",")]
        if setting.name == "resolution" and all(part.isdecimal() for part in numbers):
            return numbers[0] if len(numbers) == 1 else f"[{', '.join(numbers)}]"
        value = _parsed(text)
        if value is None and setting.is_list:
            return toml_value([part.strip() for part in text.split(",")])
        if value is not None:
            return text
    return toml_value(typed.strip())


def _parsed(text: str) -> Any:
    try:
        values = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return None
    return values.get("value") if len(values) == 1 and "\n" not in text else None


def typed_of(value: Any) -> str:
    """Return a value as a person types it into a field."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(str(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_setting(
    draft: Draft, name: str, typed: str, *, subset: int = 0, dataset: int = 0
) -> Draft:
    """Return the draft with a setting as typed; empty takes it out of the file.

    Where there are several datasets, what [general] says of all stays: the one gets its own line.
    """
    place = stated(draft, name, subset=subset, dataset=dataset)
    literal = literal_of(declared(name), typed)
    is_written = place.source in ("dataset", "config")
    is_shared = place.path[0] == "general" and num_datasets(draft) > 1
    if literal is None and (is_shared or not is_written):
        return draft
    role, path = place.role, place.path
    if is_shared:
        role, path = place_for(draft, name, subset=subset, dataset=dataset)
    return draft.with_value(role, path, literal)


def with_preset(draft: Draft, name: str) -> Draft:
    """Return the draft with a preset, and with its values where the dataset file states them.

    Several datasets differ on purpose: theirs stay.
    """
    draft = draft.with_value(CONFIG, ("preset",), toml_value(name) if name else None)
    if name not in PRESETS or num_datasets(draft) > 1:
        return draft
    values = preset_document(name).values
    for key in COPIED_FROM_PRESET:
        place = stated(draft, key)
        if place.source == "dataset" and key in values:
            draft = draft.with_value(DATASET, place.path, toml_value(values[key]))
    return draft


def check(draft: Draft, cwd: Path) -> Checked:
    """Load the draft as `sdft train` will load its files."""
    texts = {file.path: file.text for file in draft.files}

    def read(path: Path, folder: Path) -> Document:
        text = texts.get(path.absolute())
        if text is None:
            return read_document(path, folder)
        name = shown(path, folder)
        values, lines = parsed(text, name, is_json=False)
        return Document(path=path.absolute(), name=name, values=values, lines=lines)

    try:
        config = load_config(draft.config.path, {}, cwd, for_training=True, read=read)
    except OSError as error:
        # Such as a folder that may not be looked into.
        problem = Problem(error.strerror or str(error), str(error.filename or ""))
        return Checked(config=None, problems=(problem,), notices=(), fields=("",), datasets=(None,))
    except ConfigError as error:
        fields = tuple(field_of(problem, draft, cwd) for problem in error.problems)
        datasets = tuple(dataset_of(problem, draft, cwd) for problem in error.problems)
        return Checked(
            config=None, problems=error.problems, notices=(), fields=fields, datasets=datasets
        )
    return Checked(config=config, problems=(), notices=config.notices, fields=(), datasets=())


def field_of(problem: Problem, draft: Draft, cwd: Path) -> str:
    """Return the setting that a problem is about: by its line, or else by a name that it holds."""
    name, _, line = problem.where.rpartition(":")
    for file in draft.files:
        if line.isdecimal() and name == shown(file.path, cwd):
            there = _keys_on(file.text, int(line))
            known = [key for key in there if key in all_names()]
            if known:
                named = [key for key in known if key in problem.what]
                return (named or known)[-1]
    words: list[str] = re.findall(r"[a-z][a-z0-9_]+", f"{problem.where} {problem.what}")
    names = [FLAG_TO_KEY.get(word, word) for word in words]
    # A word such as `ema` may be the setting or its meaning; what has a `_` is a setting.
    found = [word for word in names if word in all_names()]
    found.sort(key=lambda word: "_" not in word)
    if found:
        return found[0]
    return "image_dir" if "subset" in problem.what else ""


def dataset_of(problem: Problem, draft: Draft, cwd: Path) -> int | None:
    """Return the position of the dataset that a problem's line stands in."""
    name, _, line = problem.where.rpartition(":")
    file = draft.file(DATASET)
    if not line.isdecimal() or name != shown(file.path, cwd):
        return None
    # The last key or header at or above the line.
    above = [(at, path) for path, at in _lines(file.text).items() if at <= int(line)]
    _, path = max(above, key=lambda pair: pair[0], default=(0, ()))
    is_inside = len(path) > 1 and path[0] == "datasets" and isinstance(path[1], int)
    return int(path[1]) if is_inside else None


def _keys_on(text: str, line: int) -> list[str]:
    return [str(path[-1]) for path, number in _lines(text).items() if number == line]


def _lines(text: str) -> Mapping[KeyPath, int]:
    try:
        return toml_lines(text.replace("\r\n", "\n"))
    except (AssertionError, ValueError, IndexError):
        return {}


@lru_cache(1)
def all_names() -> frozenset[str]:
    names = {*TrainingSettings.model_fields, *SubsetSettings.model_fields, "dataset_config"}
    return frozenset(names | {setting.name for setting in dataset_settings()})
