"""What differs between two runs: settings, images, environment, curves.

In: two run folders. Out: a RunDiff.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft.views.run_record import RunRecord, shown
from sdft.views.series import Curve

NUM_IMAGES_NAMED = 20
MAX_LINE_CHARACTERS = 65_536

HARMLESS = ("output_dir", "output_name", "resume", "overwrite", "cache_dir", "logging_dir")
"""Settings that two runs nearly always differ in and that change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One name with its two values; an empty text stands for one that is not there."""

    name: str
    first: str
    second: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDiff:
    """What two runs do not have in common."""

    settings: tuple[Difference, ...]
    data: tuple[Difference, ...]
    """Images that only one has, or that became something else."""
    num_images_different: int
    environment: tuple[Difference, ...]
    curves: tuple[Difference, ...]
    """Figures that both have, whether they differ or not."""
    first_loss_apart: int | None
    """The first step whose losses are not the very same; none where all are."""

    def as_json(self) -> dict[str, Any]:
        def rows(differences: tuple[Difference, ...]) -> list[list[str]]:
            return [[one.name, one.first, one.second] for one in differences]

        return {
            "settings": rows(self.settings),
            "data": rows(self.data),
            "images_different": self.num_images_different,
            "environment": rows(self.environment),
            "curves": rows(self.curves),
            "first_loss_apart": self.first_loss_apart,
        }


def diff_runs(first: RunRecord, second: RunRecord) -> RunDiff:
    """Compare two runs."""
    images = _image_differences(first.run.fates_file, second.run.fates_file)
    return RunDiff(
        settings=_differences(first.settings, second.settings, without=HARMLESS),
        data=tuple(images[:NUM_IMAGES_NAMED]),
        num_images_different=len(images),
        environment=_differences(first.environment, second.environment),
        curves=_figures(first, second),
        first_loss_apart=_first_apart(
            first.snapshot.curves["loss"], second.snapshot.curves["loss"]
        ),
    )


def _differences(
    first: Mapping[str, Any], second: Mapping[str, Any], *, without: tuple[str, ...] = ()
) -> tuple[Difference, ...]:
    names = [*first, *(name for name in second if name not in first)]
    return tuple(
        Difference(name=name, first=_words(first, name), second=_words(second, name))
        for name in names
        if name not in without and first.get(name) != second.get(name)
    )


def _words(values: Mapping[str, Any], name: str) -> str:
    return shown(values[name]) if name in values else ""


def _image_differences(first: Path, second: Path) -> list[Difference]:
    """Return the images that are not the same in both, by their paths' ends.

    Two machines have the same images in different folders, so what all paths of a run begin with
    does not count.
    """
    one, other = _fates(first), _fates(second)
    names = [*one, *(name for name in other if name not in one)]
    return [
        Difference(name=name, first=one.get(name, ""), second=other.get(name, ""))
        for name in names
        if one.get(name) != other.get(name)
    ]


def _fates(path: Path) -> dict[str, str]:
    fates: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(MAX_LINE_CHARACTERS):
                record = _object(line)
                if "path" in record:
                    fates[str(record["path"]).replace("\\", "/")] = _fate(record)
    except OSError:
        return {}
    start = _common_folder(list(fates))
    return {name[len(start) :]: fate for name, fate in fates.items()}


def _fate(record: Mapping[str, Any]) -> str:
    bucket = record.get("bucket")
    size = f" in {bucket[0]}x{bucket[1]}" if isinstance(bucket, list) and len(bucket) == 2 else ""
    repeats = record.get("repeats")
    times = f", {repeats} times" if isinstance(repeats, int) and repeats > 1 else ""
    reason = record.get("reason")
    why = f" ({reason})" if reason and not size else ""
    return f"{record.get('fate')}{size}{times}{why}"


def _common_folder(names: list[str]) -> str:
    if not names:
        return ""
    low, high = min(names), max(names)
    length = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[: low[:length].rfind("/") + 1]


def _object(line: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _figures(first: RunRecord, second: RunRecord) -> tuple[Difference, ...]:
    found = [("state", first.state.name, second.state.name)]
    for name, words in (
        ("loss", "loss, mean of the last steps"),
        ("validation", "loss of held-out images, last"),
        ("images_per_s", "images/s, last"),
    ):
        one, other = _last(first, name), _last(second, name)
        if one or other:
            found.append((words, one, other))
    steps = (str(first.snapshot.summary.step), str(second.snapshot.summary.step))
    found.insert(1, ("steps done", *steps))
    return tuple(Difference(name=name, first=one, second=other) for name, one, other in found)


def _last(record: RunRecord, name: str) -> str:
    summary = record.snapshot.summary
    match name:
        case "loss":
            value = summary.loss.mean
        case "validation":
            value = None if summary.validation is None else summary.validation.loss
        case _:
            value = summary.images_per_s
    return "" if value is None else f"{value:.5g}"


def _first_apart(first: Curve, second: Curve) -> int | None:
    """Return the first step at which two loss curves are not the same.

    Of runs so long that their curves hold means, it is the first of the steps behind that mean.
    """
    other = {point.step: point.mean for point in second.points()}
    for point in first.points():
        if point.step in other and other[point.step] != point.mean:
            return point.step
    return None
