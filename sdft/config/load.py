"""Config, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdft.config.dataset import DatasetSettings
from sdft.config.training import TrainingSettings
from sdft.errors import Problem


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

    def with_training(self, **changes: object) -> Config:
        """Return this config with some training settings replaced, such as a drawn seed."""
        values = dict(self.training) | changes
        return replace(self, training=TrainingSettings.model_validate(values))


def load_config(
    path: Path | None,
    flags: Mapping[str, object],
    cwd: Path,
    *,
    for_training: bool = False,
    need_dataset: bool = True,
) -> Config:
    """Read CONFIG and the flags, and check everything.

    `flags` goes from setting names, as in TOML or as on the command line, to text or typed
    values; none means not given. `for_training` also checks what only training needs: that a
    model and an output folder are named and that the model is there.

    Raises: ConfigError with all mistakes; DataError for a file that is not UTF-8.
    """
    raise NotImplementedError
