"""The tables of a dataset file, made into resolved datasets by inheritance.

A subset's key is looked up in its subset, dataset, [general], then among the flags; a dataset's
key in its dataset, [general], then among the flags. What is found nowhere has its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.document import Document
from sdft.config.names import Findings, dataset_levels, misplaced_in_dataset
from sdft.config.paths import advice_on_windows_path
from sdft.config.positions import KeyPath
from sdft.config.settings import settings_of
from sdft.config.values import Given, typed_values
from sdft.errors import Problem, nearest
from sdft.urls import UrlPath

ONLY_WITH_CAPTION_FILES = ("caption_extension", "class_tokens", "is_reg")
"""Keys that say nothing about a subset whose captions stand in a metadata file."""


@dataclass(frozen=True, slots=True)
class Level:
    """What one table or the flags say."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """Typed values of the keys that fit."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each key stands, also where its value does not fit."""


def level_of(given: Mapping[str, Given], cwd: Path, findings: Findings) -> Level:
    """Return the typed values of one table; a value that does not fit becomes a problem."""
    values: dict[str, Any] = {}
    problems: dict[Problem, None] = {}
    for model in (DatasetSettings, SubsetSettings):
        names = {setting.name for setting in settings_of(model)}
        part = {name: one for name, one in given.items() if name in names}
        typed, wrong = typed_values(model, part, cwd)
        values |= typed
        # resize_interpolation belongs to both models; its mistake is told once.
        problems |= dict.fromkeys(wrong)
    findings.problems += problems
    return Level(values, {name: one.where for name, one in given.items()})


def merged_datasets(
    document: Document, flags: Level, cwd: Path, findings: Findings
) -> tuple[DatasetSettings, ...]:
    """Return the datasets of a document; mistakes go to `findings`."""
    merger = _Merger(document, cwd, findings)
    general_table = document.values.get("general") or {}
    if not isinstance(general_table, dict):
        place = document.where(("general",))
        findings.problems.append(Problem("general must be a table, [general]", place))
        general_table = {}
    general = merger.level(("general",), general_table, "G")
    tables = merger.tables(("datasets",), document.values.get("datasets"))
    if not tables and not document.values.get("datasets"):
        findings.problems.append(Problem("no [[datasets]] in the file", document.name))
    datasets = [
        merger.dataset(number, table, (general, flags)) for number, table in enumerate(tables)
    ]
    return tuple(dataset for dataset in datasets if dataset is not None)


class _Merger:
    """Reads the tables of one document."""

    def __init__(self, document: Document, cwd: Path, findings: Findings) -> None:
        self.document = document
        self.cwd = cwd
        self.findings = findings

    def problem(
        self,
        what: str,
        path: KeyPath,
        fix: str = "",
        *,
        key: str = "",
        values: Mapping[str, object] | None = None,
    ) -> None:
        where = self.document.where(path)
        self.findings.problems.append(Problem(what, where, fix, key, values or {}))

    def tables(self, path: KeyPath, value: object) -> list[Mapping[str, Any]]:
        """Return an array of tables; anything else is a problem and an empty list."""
        if value is None:
            return []
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            return value
        dotted = ".".join(str(part) for part in path if isinstance(part, str))
        self.problem(f"{dotted} must be an array of tables", path, f"write it as [[{dotted}]]")
        return []

    def level(self, path: KeyPath, table: Mapping[str, Any], letter: str) -> Level:
        given: dict[str, Given] = {}
        for key, value in table.items():
            where = self.document.where((*path, key))
            if value is None or self.findings.answered(key, value, where):
                continue
            if letter in dataset_levels().get(key, ""):
                folder = self.document.path.parent
                given[key] = Given(value=value, where=where, folder=folder)
            else:
                self.findings.problems.append(misplaced_in_dataset(key, letter, where))
        return level_of(given, self.cwd, self.findings)

    def dataset(
        self, number: int, table: Mapping[str, Any], outer: tuple[Level, ...]
    ) -> DatasetSettings | None:
        path: KeyPath = ("datasets", number)
        own = self.level(path, {k: v for k, v in table.items() if k != "subsets"}, "D")
        levels = (own, *outer)
        values, origins = _inherited(DatasetSettings, levels)
        self._round_sides(values, path)
        keys = {*table, *(self.document.values.get("general") or {})}
        # A misspelt resolution has been told; that it is missing would be told on top.
        is_meant = any(nearest(key, ["resolution"]) for key in keys)
        if not is_meant and not any("resolution" in level.places for level in levels):
            self.problem(
                f"[[datasets]] {number + 1} has no resolution",
                path,
                "add resolution = 512 or resolution = [512, 768] to it or to [general], "
                "or give --resolution",
                key="no_resolution",
                values={"number": number + 1},
            )
        subsets = self._subsets(path, table, levels)
        dotted = f"datasets.{number}"
        self.findings.origins |= {f"{dotted}.{name}": place for name, place in origins.items()}
        for index, (_, places) in enumerate(subsets):
            self.findings.origins |= {
                f"{dotted}.subsets.{index}.{name}": place for name, place in places.items()
            }
        if not subsets:
            return None
        return DatasetSettings(**values, subsets=tuple(subset for subset, _ in subsets))

    def _subsets(
        self, path: KeyPath, table: Mapping[str, Any], levels: Sequence[Level]
    ) -> list[tuple[SubsetSettings, dict[str, str]]]:
        """Return the subsets that count, each with where its values come from."""
        title = f"[[datasets]] {int(path[1]) + 1}"
        tables = self.tables((*path, "subsets"), table.get("subsets"))
        if not tables:
            fix = "add [[datasets.subsets]] with image_dir, or with metadata_file"
            what = f"{title} has no [[datasets.subsets]]"
            self.problem(what, path, fix, key="no_subsets", values={"title": title})
            return []
        kept: dict[Path | None, tuple[SubsetSettings, dict[str, str]]] = {}
        kinds: set[str] = set()
        is_whole = True
        for number, subset_table in enumerate(tables):
            subset_path = (*path, "subsets", number)
            own = self.level(subset_path, subset_table, "S")
            kind = self._kind(own, subset_path)
            if kind is None:
                is_whole = False
                continue
            kinds.add(kind)
            names = ONLY_WITH_CAPTION_FILES if kind == "metadata_file" else ()
            values, places = _inherited(SubsetSettings, (own, *levels), without=names)
            if kind not in values or values.get("num_repeats") == 0:
                is_whole = is_whole and kind in values
                if kind in values:
                    self._notice("num_repeats is 0: the subset is left out", subset_path)
            elif values[kind] in kept:
                self._notice(
                    f"{kind} {values[kind]} stands twice in {title}: only the first counts",
                    subset_path,
                )
            else:
                kept[values[kind]] = (SubsetSettings(**values), places)
        if len(kinds) > 1:
            self.problem(
                f"{title} mixes subsets with metadata_file and subsets without",
                path,
                "give each kind a [[datasets]] of its own",
            )
        if not kept and is_whole:
            self.problem(f"{title} has no subset left with num_repeats above 0", path)
        return list(kept.values())

    def _kind(self, own: Level, path: KeyPath) -> str | None:
        """Return the key that names the subset's captions; none where the subset has no images."""
        if "metadata_file" in own.places:
            for name in ONLY_WITH_CAPTION_FILES:
                if (
                    name in own.values
                    and own.values[name] != SubsetSettings.model_fields[name].default
                ):
                    self.problem(
                        f"{name} has no meaning where captions come from metadata_file",
                        (*path, name),
                        "remove one of the two",
                    )
            return "metadata_file"
        if "image_dir" in own.places:
            return "image_dir"
        what = "the subset names no images"
        self.problem(what, path, "add image_dir, or metadata_file, or both")
        return None

    def _round_sides(self, values: dict[str, Any], path: KeyPath) -> None:
        """Bring the limits of bucket sides to multiples of the step, as sd-scripts does."""
        step = values.get("bucket_reso_steps", DatasetSettings().bucket_reso_steps)
        if not values.get("enable_bucket") or values.get("bucket_no_upscale"):
            return
        for name, up in (("min_bucket_reso", False), ("max_bucket_reso", True)):
            asked = values.get(name, DatasetSettings.model_fields[name].default)
            rounded = -(-asked // step) * step if up else asked // step * step
            if rounded != asked and rounded > 0:
                values[name] = rounded
                self._notice(
                    f"{name} {asked} is no multiple of {step}: {rounded} is used", (*path, name)
                )

    def _notice(self, what: str, path: KeyPath) -> None:
        self.findings.notices.append(Problem(what, self.document.where(path)))


def _inherited(
    model: type[BaseModel], levels: Sequence[Level], without: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that the levels give, the first level winning, and where each stands."""
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for setting in settings_of(model):
        name = setting.name
        level = next((level for level in levels if name in level.values), None)
        places[name] = "default"
        if level is not None and name not in without:
            values[name] = level.values[name]
            places[name] = level.places[name]
    return values, places


def missing_path(path: Path, kind: str) -> tuple[str, str] | None:
    """Return (what, fix) where a path that should exist does not; `kind` is folder or file."""
    # What is on an object store is asked for only once, when it is listed.
    if isinstance(path, UrlPath) or (path.is_dir() if kind == "folder" else path.is_file()):
        return None
    if path.exists():
        return f"{path} is not a {kind}", ""
    if advice := advice_on_windows_path(path):
        return f"no such {kind}: {path}", advice
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        siblings = []
        while not path.parent.exists():
            path = path.parent
    return f"no such {kind}: {path}", nearest(path.name, siblings)
