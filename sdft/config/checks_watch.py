"""Checks of what watches a run: sample pictures, validation, trackers.

In: resolved settings and where each was set. Out: problems to be mended before the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sdft.config.dataset import DatasetSettings
from sdft.config.document import read_document
from sdft.config.merge import missing_path
from sdft.config.places import Origins, place
from sdft.config.prompts import read_prompts
from sdft.config.training import TrainingSettings
from sdft.errors import ConfigError, Problem

_SAMPLES = (
    "sample_every_n_steps",
    "sample_every_n_epochs",
    "sample_every_n_minutes",
    "sample_at_first",
)

_VALIDATION = (
    "validate_every_n_steps",
    "validate_every_n_epochs",
    "max_validation_steps",
    "save_best_validation",
    "stop_after_n_validations",
)


def problems_of_watching(
    t: TrainingSettings, datasets: Sequence[DatasetSettings], origins: Origins
) -> Iterator[Problem]:
    """Give what cannot work, whatever the command."""
    if t.log_with in ("tensorboard", "all") and t.logging_dir is None:
        yield Problem(f"log_with {t.log_with} needs logging_dir", place(origins, "log_with"))
    for name in _SAMPLES:
        if getattr(t, name) and t.sample_prompts is None:
            what = f"{name} needs sample_prompts"
            yield Problem(what, place(origins, name), "name a file of prompts")
    yield from _validation(t, datasets, origins)


def problems_of_watched_files(t: TrainingSettings) -> list[Problem]:
    """Return what is wrong inside the files that a run would read later; missing ones are passed
    over, since they are said elsewhere."""
    found: list[Problem] = []
    try:
        if t.sample_prompts is not None and t.sample_prompts.exists():
            read_prompts(t.sample_prompts, Path.cwd())
    except ConfigError as error:
        found += error.problems
    try:
        if t.log_tracker_config is not None and t.log_tracker_config.exists():
            found += _not_tables(t.log_tracker_config)
    except ConfigError as error:
        found += error.problems
    return found


def _not_tables(path: Path) -> list[Problem]:
    document = read_document(path, Path.cwd())
    return [
        Problem(
            f'"{name}" is not the table of a tracker',
            document.where((name,)),
            "begin the options of a tracker with its name in brackets, such as [wandb]",
        )
        for name, value in document.values.items()
        if not isinstance(value, dict)
    ]


def _validation(
    t: TrainingSettings, datasets: Sequence[DatasetSettings], origins: Origins
) -> Iterator[Problem]:
    if t.validation_dir is not None:
        missing = missing_path(t.validation_dir, "folder")
        if missing:
            where = place(origins, "validation_dir")
            yield Problem(f"validation_dir: {missing[0]}", where, missing[1])
    elif datasets and not any(dataset.validation_split for dataset in datasets):
        for name in _VALIDATION:
            if getattr(t, name):
                yield Problem(
                    f"{name} needs images to measure with",
                    place(origins, name),
                    "set validation_split of a dataset, or validation_dir",
                )
