"""`sdft import`: another program's settings as config.toml and dataset.toml.

In: a script with an sd-scripts line, or a settings file of a GUI or another trainer. Out: the two
files, and what was kept, mapped, refused. Settings are written as they were given, paths too: what
a relative path starts from is decided when the files are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.document import read_document
from sdft.config.load import load_config
from sdft.config.names import FLAG_TO_KEY, dataset_levels, source_names, training_names
from sdft.config.old_form import old_form_document
from sdft.config.refused import NEEDLESS, REFUSED, is_asked
from sdft.config.settings import setting_named
from sdft.config.shorthands import fold_shorthands
from sdft.config.training import TrainingSettings
from sdft.config.values import PATH_OR_WORD, Given, typed_values
from sdft.config.write import toml_value
from sdft.errors import ConfigError, UserError, nearest
from sdft.files import read_text, write_text
from sdft.formats.script_lines import KINDS, Command, read_commands
from sdft.jobs.importing.foreign import Foreign
from sdft.jobs.importing.kohya_gui import from_kohya_gui
from sdft.jobs.importing.onetrainer import from_onetrainer
from sdft.jobs.importing.simpletuner import from_simpletuner

SCRIPTS = ("fine_tune.py", "train_db.py", "train_network.py")
"""Scripts of sd-scripts whose line is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of another program's settings."""

    program: str
    files: tuple[Path, ...]
    kept: tuple[str, ...]
    mapped: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    """What the files that were written still lack, such as a folder that is not there."""

    def as_json(self) -> dict[str, object]:
        return {
            "program": self.program,
            "files": [str(path) for path in self.files],
            "kept": list(self.kept),
            "mapped": [{"from": old, "to": new} for old, new in self.mapped],
            "refused": [{"name": name, "why": why} for name, why in self.refused],
            "problems": list(self.problems),
        }

    def words(self) -> str:
        lines = [f"from {self.program}", "kept     " + ", ".join(self.kept)]
        lines += [f"mapped   {old} -> {new}" for old, new in self.mapped]
        lines += [f"refused  {name}: {why}" for name, why in self.refused]
        lines += [f"to mend  {problem}" for problem in self.problems]
        lines += [f"wrote    {path}" for path in self.files]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the file holds, before a command line in it is read."""

    words: tuple[str, ...]
    """Of a command line, behind the script's name."""
    foreign: Foreign


def read_source(path: Path) -> Source:
    """Read the file to import.

    Raises: UserError where it is no file of a kind that is known, DataError where it is no text.
    """
    if not path.is_file():
        raise UserError(what="no such file", where=str(path))
    kind = KINDS.get(path.suffix.lower())
    if kind is not None:
        return _from_script(path, read_commands(read_text(path), kind))
    if path.suffix.lower() != ".json":
        raise UserError(
            what="not a kind of file that can be imported",
            where=str(path),
            fix=f"known: {', '.join(KINDS)} with a command line, and .json of kohya_ss, OneTrainer"
            " or SimpleTuner",
        )
    return _from_json(path)


def _from_script(path: Path, commands: tuple[Command, ...]) -> Source:
    found = Foreign("sd-scripts")
    lines = [(one, place) for one in commands if (place := _script_place(one.words)) is not None]
    if not lines:
        raise UserError(
            what="no line here starts a training script",
            where=str(path),
            fix=f"known: {', '.join(SCRIPTS)}, sdft train",
        )
    command, place = lines[0]
    for other, _ in lines[1:]:
        found.drop(f"line {other.line}", "another training; put it into a file of its own")
    script = _last_part(command.words[place])
    if script == "train_network.py":
        found.drop(script, "LoRA is not supported; the whole U-Net is trained")
    for name in dict.fromkeys(command.unknown):
        found.drop(name, "the file does not set this variable; write its value out")
    return Source(words=command.words[place + 1 :], foreign=found)


def _script_place(words: tuple[str, ...]) -> int | None:
    for place, word in enumerate(words):
        if _last_part(word) in SCRIPTS:
            return place
        if _last_part(word) in ("sdft", "sdft.exe") and words[place + 1 : place + 2] == ("train",):
            return place + 1
    return None


def _last_part(word: str) -> str:
    return word.replace("\\", "/").rpartition("/")[2]


def _from_json(path: Path) -> Source:
    try:
        values = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        what = f"not valid JSON: {error.msg}"
        raise ConfigError(what=what, where=f"{path}:{error.lineno}") from error
    if not isinstance(values, dict):
        raise UserError(what="one object { ... } is wanted", where=str(path))
    if "base_model_name" in values:
        return Source(words=(), foreign=from_onetrainer(values))
    names = {name.lstrip("-") for name in values}
    if "data_backend_config" in names or any(name.startswith("--") for name in values):
        return Source(words=(), foreign=_simpletuner(path, values))
    if names & {"pretrained_model_name_or_path", "LoRA_type", "max_resolution"}:
        return Source(words=(), foreign=from_kohya_gui(values))
    raise UserError(
        what="not the settings of a program that is known",
        where=str(path),
        fix="known: kohya_ss GUI, OneTrainer, SimpleTuner",
    )


def _simpletuner(path: Path, values: Mapping[str, Any]) -> Foreign:
    named = values.get("--data_backend_config") or values.get("data_backend_config")
    backends: list[Any] = []
    file = path.parent / Path(str(named)).name if named else None
    for candidate in (Path(str(named)) if named else None, file):
        if candidate is not None and candidate.is_file():
            read = json.loads(read_text(candidate))
            backends = read if isinstance(read, list) else []
            break
    found = from_simpletuner(values, backends)
    if named and not backends:
        found.drop("data_backend_config", f"{named} was not found, so no images are named")
    return found


@dataclass(slots=True)
class _Sorted:
    training: dict[str, Given] = field(default_factory=dict)
    keys: dict[str, Given] = field(default_factory=dict)
    sources: dict[str, object] = field(default_factory=dict)


def run_import(
    foreign: Foreign, settings: Mapping[str, object], *, out_dir: Path, origin: str, overwrite: bool
) -> ImportResult:
    """Write config.toml, and dataset.toml unless the settings name a dataset file.

    `settings` are by the names of the command line, as text or typed. Raises: UserError where a
    file is there already.
    """
    sorted_settings = _sorted(_with_config_file(settings), foreign)
    mapped_before = len(foreign.mapped)
    training = _training_values(sorted_settings.training, foreign)
    keys = _key_values(sorted_settings.keys, foreign)
    kept = [*training, *keys, *sorted_settings.sources]
    files = {"config.toml": "", "dataset.toml": _dataset_text(sorted_settings, foreign, keys)}
    if files["dataset.toml"]:
        training["dataset_config"] = os.path.abspath(out_dir / "dataset.toml")
    else:
        if "dataset_config" in sorted_settings.sources:
            training["dataset_config"] = str(sorted_settings.sources["dataset_config"])
        # What a dataset file leaves open, these decide, as on the line.
        training |= keys
        del files["dataset.toml"]
    files["config.toml"] = _config_text(training, foreign, origin)
    paths = {out_dir / name: text for name, text in files.items()}
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise UserError(
            what="this file is there already",
            where=str(there[0]),
            fix="name another folder with --out, or add --overwrite",
        )
    for path, text in paths.items():
        write_text(path, text)
    renamed = {new for _, new in foreign.mapped[:mapped_before]}
    return ImportResult(
        program=foreign.program,
        files=tuple(paths),
        kept=tuple(name for name in kept if name not in renamed),
        mapped=tuple(foreign.mapped),
        refused=tuple(foreign.refused),
        problems=_problems(out_dir / "config.toml"),
    )


def _with_config_file(settings: Mapping[str, object]) -> dict[str, object]:
    """Put what a config_file says under what the line says, as sd-scripts does."""
    named = settings.get("config_file")
    if not named:
        return dict(settings)
    path = Path(str(named))
    path = path if path.suffix or path.exists() else path.with_suffix(".toml")
    flat: dict[str, object] = {}
    for name, value in read_document(path, Path.cwd()).values.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat | {name: value for name, value in settings.items() if name != "config_file"}


def _sorted(settings: Mapping[str, object], foreign: Foreign) -> _Sorted:
    found = _Sorted()
    for name, value in settings.items():
        key = FLAG_TO_KEY.get(name, name)
        one = Given(value=value, where=name, folder=None)
        if not is_asked(value) and value is not False:
            continue
        if name in REFUSED or name in NEEDLESS:
            if is_asked(value):
                foreign.drop(name, REFUSED.get(name) or f"not needed: {NEEDLESS[name]}")
        elif name in training_names():
            found.training[name] = one
        elif dataset_levels().get(key, "S") != "S":
            found.keys[key] = one
            if key != name:
                foreign.mapped.append((name, key))
        elif name in source_names():
            found.sources[name] = value
        else:
            known = sorted(training_names() | dataset_levels().keys())
            foreign.drop(name, " ".join(["no such setting", nearest(name, known)]).strip())
    return found


def _training_values(given: Mapping[str, Given], foreign: Foreign) -> dict[str, Any]:
    values, wrong = typed_values(TrainingSettings, given, Path.cwd())
    for problem in wrong:
        foreign.drop(problem.where, problem.what)
    places = {name: name for name in values}
    moved = fold_shorthands(values, places, lambda one: foreign.drop(one.where, one.what))
    foreign.mapped += [(old, new) for new, old in moved.items()]
    for name in values:
        setting = setting_named(TrainingSettings, name)
        if name in given and setting and (setting.is_path or name in PATH_OR_WORD):
            values[name] = str(given[name].value)
    return values


def _key_values(given: Mapping[str, Given], foreign: Foreign) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for model in (DatasetSettings, SubsetSettings):
        part = {name: one for name, one in given.items() if setting_named(model, name)}
        typed, wrong = typed_values(model, part, Path.cwd())
        values |= typed
        for problem in wrong:
            if (problem.where, problem.what) not in foreign.refused:
                foreign.drop(problem.where, problem.what)
    return values


def _dataset_text(given: _Sorted, foreign: Foreign, keys: Mapping[str, Any]) -> str:
    """Return a dataset file, or nothing where one is named already or no images are."""
    tables = foreign.datasets
    folder, metadata = given.sources.get("train_data_dir"), given.sources.get("in_json")
    if "dataset_config" in given.sources:
        return ""
    if not tables and (folder or metadata):
        paths = [Path(str(one)) if one else None for one in (folder, metadata)]
        document, notices = old_form_document(paths[0], paths[1], "train_data_dir")
        tables = list(document.values["datasets"])
        for notice in notices:
            foreign.drop("train_data_dir", notice.what)
        foreign.mapped.append(("train_data_dir, in_json", "[[datasets.subsets]]"))
    if not tables:
        return ""
    lines = ["[general]", *_lines(keys)]
    for table in tables:
        own = {name: value for name, value in table.items() if name != "subsets"}
        lines += ["", "[[datasets]]", *_lines(own)]
        for subset in table["subsets"]:
            lines += ["", "[[datasets.subsets]]", *_lines(subset)]
    return "\n".join(lines) + "\n"


def _config_text(training: Mapping[str, Any], foreign: Foreign, origin: str) -> str:
    lines = [f"# Imported from {origin} ({foreign.program})."]
    lines += [f"# Left out: {name}: {why}" for name, why in foreign.refused]
    return "\n".join([*lines, "", *_lines(training)]) + "\n"


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {toml_value(value)}" for name, value in values.items()]


def _problems(config_file: Path) -> tuple[str, ...]:
    try:
        load_config(config_file, {}, Path.cwd(), for_training=True)
    except ConfigError as error:
        return tuple(str(problem).replace("\n  -> ", "; ") for problem in error.problems)
    return ()
