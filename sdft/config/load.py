"""Config, and reading it from a file and flags.

In: the path of a training or dataset file, flags, the current folder. Out: a Config, or one
ConfigError with every mistake.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdft.config.accelerate_config import (
    problems_of_accelerate,
    settings_of_accelerate,
    unused_of_accelerate,
)
from sdft.config.checks import effects_missing, problems_in, problems_of_training
from sdft.config.dataset import DatasetSettings, SourceSettings
from sdft.config.document import Document, read_document
from sdft.config.merge import Level, level_of, merged_datasets
from sdft.config.names import (
    FLAG_TO_KEY,
    Findings,
    dataset_levels,
    misplaced_in_training,
    source_names,
    training_names,
)
from sdft.config.old_form import old_form_document
from sdft.config.positions import KeyPath
from sdft.config.preset import PRESETS, preset_document
from sdft.config.settings import settings_of
from sdft.config.shorthands import fold_shorthands
from sdft.config.training import TrainingSettings
from sdft.config.values import Given, resolve_path, typed_values
from sdft.errors import ConfigError, Problem, nearest

Reader = Callable[[Path, Path], Document]
"""Reads the file at a path as messages from a current folder name it; as `read_document` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that was set, resolved. Two are equal when their settings are."""

    training: TrainingSettings
    datasets: tuple[DatasetSettings, ...]
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Setting name (`learning_rate`, `datasets.0.subsets.1.image_dir`) to where it was set:
    `config.toml:3`, `--learning_rate` or `default`."""
    notices: tuple[Problem, ...] = field(default=(), compare=False)
    """What a person should know but need not mend."""
    path: Path | None = field(default=None, compare=False)
    """The file that CONFIG named, absolute; none where flags said it all."""
    dataset_path: Path | None = field(default=None, compare=False)
    """The file that holds the datasets, absolute; none in the old form."""

    def with_training(self, **changes: object) -> Config:
        """Return this config with some training settings replaced, such as a drawn seed."""
        values = dict(self.training) | changes
        return replace(self, training=TrainingSettings.model_validate(values))


@dataclass(slots=True)
class _Sorted:
    """What was given, by what it is about."""

    training: dict[str, Given] = field(default_factory=dict)
    sources: dict[str, Given] = field(default_factory=dict)
    keys: dict[str, Given] = field(default_factory=dict)
    """Dataset keys outside of a dataset file: they are what a dataset has by default."""


def load_config(
    path: Path | None,
    flags: Mapping[str, object],
    cwd: Path,
    *,
    for_training: bool = False,
    need_dataset: bool = True,
    read: Reader = read_document,
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """Read CONFIG and the flags, and check everything.

    `flags` goes from setting names, as in TOML or as on the command line, to text or typed
    values; none means not given. `for_training` also checks what only training needs: that a
    model and an output folder are named and that the model is there. `read` gives files that are
    not on disk yet. `environment` holds what `accelerate launch` says; all else wins over it.

    Raises: ConfigError with all mistakes.
    """
    findings = Findings()
    findings.problems += problems_of_accelerate(environment)
    findings.notices += unused_of_accelerate(environment)
    path = path or _path_from_flag(flags, cwd)
    document = read(cwd / path, cwd) if path is not None else None
    given = _sort_given(_preset(document, flags), document, flags, findings)
    given.training = settings_of_accelerate(environment) | given.training
    training = _training(given.training, cwd, findings)
    sources, wrong = typed_values(SourceSettings, given.sources, cwd)
    findings.problems += wrong
    defaults = level_of(given.keys, cwd, findings)
    dataset_document = _dataset_document(document, sources, given.sources, cwd, findings, read)
    datasets: tuple[DatasetSettings, ...] = ()
    if dataset_document is not None:
        datasets = merged_datasets(dataset_document, defaults, cwd, findings)
        findings.notices += _overruled(defaults, datasets, findings.origins)
    elif need_dataset and not findings.problems:
        findings.problems.append(
            Problem(
                "no images: neither a dataset file nor train_data_dir is named",
                document.name if document else "",
                "give --dataset_config dataset.toml, or --train_data_dir FOLDER",
                "no_images_named",
            )
        )
    findings.notices += _uncached(datasets, findings)
    config = Config(
        training=training,
        datasets=datasets,
        origins=findings.origins,
        path=document.path if document else None,
        dataset_path=_real_path(dataset_document),
    )
    findings.problems += problems_in(training, datasets, findings.origins)
    if for_training:
        findings.problems += problems_of_training(training, findings.origins)
    if findings.problems:
        raise ConfigError(problems=_in_reading_order(findings.problems))
    findings.notices += effects_missing(training, findings.origins)
    return replace(config, notices=tuple(findings.notices))


def _path_from_flag(flags: Mapping[str, object], cwd: Path) -> Path | None:
    """Return what --config_file names; as in sd-scripts, .toml may be left out."""
    if not flags.get("config_file"):
        return None
    path = resolve_path(str(flags["config_file"]), cwd, None)
    return path if path.suffix or path.exists() else path.with_suffix(".toml")


def _preset(document: Document | None, flags: Mapping[str, object]) -> Document | None:
    """Return the preset that the line names, or else the file; a wrong name is told elsewhere."""
    name = flags.get("preset") or (document.values.get("preset") if document else None)
    return preset_document(str(name)) if name in PRESETS else None


def _sort_given(
    preset: Document | None,
    document: Document | None,
    flags: Mapping[str, object],
    findings: Findings,
) -> _Sorted:
    given = _Sorted()
    first_places: dict[str, str] = {}
    for name, one in _given_in_file(preset) if preset else ():
        _sort_one(name, one, given, findings)
    for name, one in _given_in_file(document) if document else ():
        if name in first_places:
            what = f"{name} is set twice, first in {first_places[name]}"
            values = {"name": name, "first": first_places[name]}
            fix = "remove one of them"
            findings.problems.append(Problem(what, one.where, fix, "set_twice", values))
        first_places[name] = one.where
        _sort_one(name, one, given, findings)
    for flag, value in flags.items():
        if value is not None and flag != "config_file":
            _sort_one(flag, Given(value=value, where=f"--{flag}", folder=None), given, findings)
    return given


def _given_in_file(document: Document) -> Iterator[tuple[str, Given]]:
    """Give the training part of a file: its top level, and its sections as if they were on it."""

    def one(path: KeyPath, value: object) -> Given:
        return Given(value=value, where=document.where(path), folder=document.path.parent)

    has_datasets = "datasets" in document.values
    for key, value in document.values.items():
        if has_datasets and key in ("general", "datasets"):
            continue
        if isinstance(value, dict):
            for inner, inner_value in value.items():
                if inner_value is not None:
                    yield inner, one((key, inner), inner_value)
        elif value is not None:
            yield key, one((key,), value)


def _sort_one(name: str, one: Given, given: _Sorted, findings: Findings) -> None:
    key = FLAG_TO_KEY.get(name, name)
    if findings.answered(name, one.value, one.where):
        return
    if name in training_names():
        given.training[name] = one
    elif dataset_levels().get(key, "S") != "S":
        given.keys[key] = one
    elif name in source_names():
        given.sources[name] = one
    else:
        is_flag = one.folder is None
        findings.problems.append(misplaced_in_training(name, one.where, is_flag=is_flag))


def _training(given: Mapping[str, Given], cwd: Path, findings: Findings) -> TrainingSettings:
    values, wrong = typed_values(TrainingSettings, given, cwd)
    findings.problems += wrong
    places = {name: one.where for name, one in given.items()}
    places |= fold_shorthands(values, places, findings.problems.append)
    for setting in settings_of(TrainingSettings):
        findings.origins[setting.name] = (
            places[setting.name] if setting.name in values else "default"
        )
    return TrainingSettings.model_validate(values)


def _dataset_document(
    document: Document | None,
    sources: Mapping[str, Any],
    given: Mapping[str, Given],
    cwd: Path,
    findings: Findings,
    read: Reader,
) -> Document | None:
    """Return where the datasets are described: inline, in a file of their own, or by flags."""
    inline = document if document is not None and "datasets" in document.values else None
    old_form = [name for name in ("train_data_dir", "in_json") if name in sources]
    found = inline
    if "dataset_config" in sources:
        if inline is not None:
            findings.problems.append(
                Problem(
                    f"{inline.name} has [[datasets]] of its own, and dataset_config names more",
                    given["dataset_config"].where,
                    "remove one of the two",
                )
            )
            return inline
        found = _read_dataset_file(sources["dataset_config"], given, cwd, findings, read)
    if found is not None:
        findings.notices += [
            Problem(f"{name} is not used: {found.name} describes the images", given[name].where)
            for name in old_form
        ]
        return found
    if not old_form or "dataset_config" in sources:
        return None
    train_data_dir, in_json = sources.get("train_data_dir"), sources.get("in_json")
    first, notices = old_form_document(train_data_dir, in_json, given[old_form[0]].where)
    findings.notices += notices
    return first


def _read_dataset_file(
    path: Path, given: Mapping[str, Given], cwd: Path, findings: Findings, read: Reader
) -> Document | None:
    try:
        found = read(path, cwd)
    except ConfigError as error:
        if not path.exists():
            findings.problems += [
                replace(
                    problem,
                    what=f"no such dataset file: {path}",
                    where=given["dataset_config"].where,
                )
                for problem in error.problems
            ]
        else:
            findings.problems += error.problems
        return None
    for key, value in found.values.items():
        if key not in ("general", "datasets") and value is not None:
            where = found.where((key,))
            if key in training_names():
                fix = "put it in the file that `sdft train` is given, or use the flag"
                problem = Problem(f"{key} is a training setting, not one of a dataset", where, fix)
            elif key in dataset_levels():
                problem = Problem(
                    f"{key} stands outside of all tables", where, "put it in [general]"
                )
            else:
                fix = nearest(key, ["general", "datasets", *dataset_levels()])
                fix = fix or "a dataset file has [general], [[datasets]] and [[datasets.subsets]]"
                problem = Problem(f'unknown key or table "{key}"', where, fix)
            findings.problems.append(problem)
    return found


def _overruled(
    flags: Level, datasets: tuple[DatasetSettings, ...], origins: Mapping[str, str]
) -> list[Problem]:
    """Return a notice for each flag that some dataset or subset overrules with another value."""
    notices = []
    for name, value in flags.values.items():
        if flags.places[name].startswith("preset "):
            continue
        for dotted, holder in _holders(datasets):
            place = origins.get(f"{dotted}.{name}", "default")
            differs = getattr(holder, name, value) != value
            if differs and place not in ("default", flags.places[name]):
                what = f"{flags.places[name]} is overruled: for {name} the dataset file wins"
                notices.append(Problem(what, place, "change it there, or remove it there"))
                break
    return notices


def _holders(
    datasets: tuple[DatasetSettings, ...],
) -> Iterator[tuple[str, object]]:
    for number, dataset in enumerate(datasets):
        yield f"datasets.{number}", dataset
        for index, subset in enumerate(dataset.subsets):
            yield f"datasets.{number}.subsets.{index}", subset


def _uncached(datasets: tuple[DatasetSettings, ...], findings: Findings) -> list[Problem]:
    """Return notices: subsets that are left out of the cache, though nobody asked for that."""
    if findings.origins.get("cache_latents") != "default":
        return []
    notices = []
    for dotted, subset in _holders(datasets):
        for name in ("color_aug", "random_crop", "face_crop_aug_range"):
            if getattr(subset, name, None):
                what = f"{name} changes images on every use, so they are encoded in each step"
                notices.append(Problem(what, findings.origins[f"{dotted}.{name}"]))
                break
    return notices


def _real_path(document: Document | None) -> Path | None:
    return document.path if document is not None and document.lines else None


def _in_reading_order(problems: list[Problem]) -> list[Problem]:
    """Return problems once each: by file and line, then those of flags."""
    files: dict[str, int] = {}
    ordered = []
    for problem in dict.fromkeys(problems):
        name, _, line = problem.where.rpartition(":")
        in_file = bool(name) and line.isdecimal()
        rank = files.setdefault(name, len(files)) if in_file else len(problems)
        ordered.append((rank, int(line) if in_file else 0, problem))
    return [problem for *_, problem in sorted(ordered, key=lambda entry: entry[:2])]
