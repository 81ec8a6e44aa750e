"""Which key may stand where, and what to say of one that may not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from sdft.config.dataset import DatasetSettings, SourceSettings, SubsetSettings
from sdft.config.refused import LORA_ADVICE, LORA_NAMES, NEEDLESS, REFUSED, is_asked
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.errors import Problem, nearest

TITLES = {"G": "[general]", "D": "[[datasets]]", "S": "[[datasets.subsets]]"}

FLAG_TO_KEY = {
    "train_batch_size": "batch_size",
    "dataset_repeats": "num_repeats",
    "caption_extention": "caption_extension",
}
"""Names on the command line of keys that a dataset file writes otherwise."""

_FILE_NAMES = FLAG_TO_KEY | {"train_data_dir": "image_dir", "in_json": "metadata_file"}
_LINE_NAMES = {"image_dir": "train_data_dir", "metadata_file": "in_json"}


@dataclass(slots=True)
class Findings:
    """What reading has found so far; grows while files are read."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)

    def answered(self, name: str, value: object, where: str) -> bool:
        """Return whether a key is one that is refused or needless, having said so."""
        if name in REFUSED:
            if is_asked(value):
                self.problems.append(Problem(f"{name}: {REFUSED[name]}", where))
            return True
        if name in NEEDLESS:
            if is_asked(value):
                self.notices.append(Problem(f"{name} is not needed: {NEEDLESS[name]}", where))
            return True
        return False


@cache
def training_names() -> frozenset[str]:
    return frozenset(setting.name for setting in settings_of(TrainingSettings))


@cache
def source_names() -> frozenset[str]:
    return frozenset(setting.name for setting in settings_of(SourceSettings))


@cache
def dataset_levels() -> dict[str, str]:
    """Return each dataset key with the levels it may stand on, such as `GDS`."""
    return {
        setting.name: setting.levels
        for model in (DatasetSettings, SubsetSettings)
        for setting in settings_of(model)
    }


def misplaced_in_dataset(name: str, level: str, where: str) -> Problem:
    """Return what to say of a key that may not stand on a level (G, D, S) of a dataset file."""
    levels = dataset_levels()
    title = TITLES[level]
    if name in _FILE_NAMES:
        fix = f"in a dataset file it is written {_FILE_NAMES[name]}"
        return Problem(f"{name} is the command line's name", where, fix)
    if name in levels:
        homes = " or ".join(TITLES[letter] for letter in levels[name])
        return Problem(f"{name} does not belong in {title}", where, f"move it to {homes}")
    if name in training_names() | source_names():
        fix = "move it to the top of the file that `sdft train` is given, or use the flag"
        return Problem(f"{name} is a training setting; it does not belong in {title}", where, fix)
    legal = [key for key, letters in levels.items() if level in letters]
    if level == "D":
        legal.append("subsets")
    fix = nearest(name, legal) or _elsewhere(name) or f"known: {', '.join(sorted(legal))}"
    values = {"name": name, "title": title}
    return Problem(f'unknown key "{name}" in {title}', where, fix, "unknown_key", values)


def misplaced_in_training(name: str, where: str, *, is_flag: bool) -> Problem:
    """Return what to say of a name that is neither a training setting nor a flag of datasets."""
    if name in _LINE_NAMES:
        other = ("--" if is_flag else "") + _LINE_NAMES[name]
        fix = f"use {other}, or write it in [[datasets.subsets]] of a dataset file"
        return Problem(f"{name} belongs to one subset", where, fix)
    if dataset_levels().get(name) == "S":
        return Problem(f"{name} belongs to one subset", where, f"move it to {TITLES['S']}")
    legal = {*training_names(), *source_names(), *FLAG_TO_KEY, "general", "datasets"}
    legal |= {key for key, letters in dataset_levels().items() if letters != "S"}
    advice = LORA_ADVICE if name in LORA_NAMES else nearest(name, sorted(legal))
    if is_flag:
        return Problem("unknown option", where, advice.replace('"', '"--', 1), "unknown_option")
    return Problem(f'unknown setting "{name}"', where, advice, "unknown_setting", {"name": name})


def _elsewhere(name: str) -> str:
    """Return advice where a misspelt key of another level comes close."""
    advice = nearest(name, sorted({*dataset_levels(), *training_names()}))
    return f"{advice} It belongs elsewhere." if advice else ""
