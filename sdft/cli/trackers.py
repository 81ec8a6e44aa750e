"""From settings to the trackers of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sdft.config.document import read_document
from sdft.config.folders import output_folder
from sdft.config.load import Config
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.config.values import PATH_OR_WORD
from sdft.rundir import RunDir
from sdft.views.trackers import (
    DEFAULT_PROJECT,
    Trackers,
    TrackerWishes,
    chosen_names,
    flat_settings,
)

DEFAULT_NAME = "last"


def trackers_of(config: Config) -> Trackers:
    """Return the trackers that the settings ask for, not started yet; often there are none.

    Raises: ConfigError where the file of their options cannot be read.
    """
    settings = config.training
    names = chosen_names(settings.log_with, has_folder=settings.logging_dir is not None)
    if os.environ.get("RANK", "0") != "0":
        # One process of several speaks for the run.
        names = ()
    run = RunDir.of(
        output_folder(config) if settings.output_dir else Path(),
        settings.output_name or DEFAULT_NAME,
    )
    options: dict[str, Any] = {}
    if settings.log_tracker_config is not None:
        options = dict(read_document(settings.log_tracker_config, Path.cwd()).values)
    return Trackers(
        TrackerWishes(
            names=names,
            folder=settings.logging_dir or run.path,
            prefix=settings.log_prefix or "",
            project=settings.log_tracker_name or DEFAULT_PROJECT,
            run_name=settings.wandb_run_name,
            options=options,
            settings=shown_settings(config) if settings.log_config else None,
        )
    )


def shown_settings(config: Config) -> dict[str, Any]:
    """Return all settings but paths: what a tracker on another machine may see."""
    names = [
        setting.name
        for setting in settings_of(TrainingSettings)
        if not setting.is_path and setting.name not in PATH_OR_WORD
    ]
    training = {name: getattr(config.training, name) for name in names}
    datasets = [
        dataset.model_dump(exclude={"subsets"})
        | {"subsets": [_without_paths(subset.model_dump()) for subset in dataset.subsets]}
        for dataset in config.datasets
    ]
    return flat_settings(training | {"datasets": datasets})


def _without_paths(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, Path)}
