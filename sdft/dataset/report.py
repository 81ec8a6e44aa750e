"""What became of every image, and how the buckets are filled.

In: an index, its plan, and what was rejected after the index. Out: rows for files and tables.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdft.collector import no_collections
from sdft.dataset.records import BucketPlan, DatasetIndex, Rejected, Size
from sdft.dataset.tables import PlacementTable
from sdft.files import whole_file

quoted = json.encoder.encode_basestring_ascii
"""A text as JSON, in ASCII."""

FATE_COLUMNS = (
    "path",
    "fate",
    "reason",
    "width",
    "height",
    "resized_width",
    "resized_height",
    "crop_left",
    "crop_top",
    "crop_right",
    "crop_bottom",
    "bucket_width",
    "bucket_height",
    "repeats",
    "scale",
    "dataset",
    "subset",
)
"""Of the table for spreadsheets, where each number has a column of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRow:
    """One bucket of one dataset."""

    dataset: int
    resolution: Size
    images: int
    repeats: int
    """Uses in an epoch: the sum of the images' repeats."""
    batches: int
    """In an epoch; the last one may be short."""
    mean_crop: float
    """Mean share of an image's area, after resizing, that is cut off; 0 .. 1."""


def bucket_rows(plan: BucketPlan, batch_sizes: Sequence[int]) -> tuple[BucketRow, ...]:
    """Count each bucket, by dataset and resolution; `batch_sizes` has an entry for each dataset."""
    table = PlacementTable.of(plan.placements)
    repeats_N = table.items.repeats_N[table.numbers_N]
    crops_N = table.crop_shares()
    rows = []
    for (dataset, resolution), members in table.by_bucket().items():
        repeats = int(repeats_N[members].sum())
        rows.append(
            BucketRow(
                dataset=dataset,
                resolution=resolution,
                images=len(members),
                repeats=repeats,
                batches=-(-repeats // batch_sizes[dataset]),
                mean_crop=float(crops_N[members].mean()),
            )
        )
    return tuple(rows)


def mean_crop(rows: Sequence[BucketRow]) -> float:
    """Return the mean share that is cut off an image, 0 .. 1; repeats do not count."""
    num_images = sum(row.images for row in rows)
    return sum(row.mean_crop * row.images for row in rows) / max(1, num_images)


def waste(rows: Sequence[BucketRow], batch_sizes: Sequence[int]) -> float:
    """Return the share of an epoch's places in batches that stay empty, 0 .. 1."""
    places = sum(row.batches * batch_sizes[row.dataset] for row in rows)
    return 1 - sum(row.repeats for row in rows) / places if places else 0.0


def fates(
    index: DatasetIndex,
    plan: BucketPlan,
    rejected: Iterable[Rejected],
    held_out: Collection[Path] = (),
) -> Iterator[dict[str, Any]]:
    """Give one row an image: the used ones in the plan's order, then the rejected ones.

    Files in `held_out` are measured, not trained on.

    `rejected` is what was rejected after the index, by the plan or on decoding; it may hold the
    index' own as well, and images that still have a placement: no image gets two rows.
    """
    refused = _refused(index, rejected)
    held = {str(path) for path in held_out}
    for row in _used_rows(PlacementTable.of(plan.placements)):
        if refused and (row["dataset"], row["subset"], row["path"]) in refused:
            continue
        if row["path"] in held:
            row["fate"] = "held out"
        yield row
    yield from map(_refused_row, refused.values())


def _refused(
    index: DatasetIndex, rejected: Iterable[Rejected]
) -> dict[tuple[int, int, str], Rejected]:
    """Return all that is not used by dataset, subset and path: each once."""
    return {
        (entry.dataset, entry.subset, str(entry.path)): entry
        for entry in (*index.rejected, *rejected)
    }


def _refused_row(entry: Rejected) -> dict[str, Any]:
    return {
        "path": str(entry.path),
        "fate": "rejected",
        "reason": entry.reason,
        "size": entry.size,
        "resized": None,
        "crop": None,
        "bucket": None,
        "repeats": 0,
        "scale": None,
        "dataset": entry.dataset,
        "subset": entry.subset,
    }


def write_fates(
    path: Path,
    index: DatasetIndex,
    plan: BucketPlan,
    rejected: Iterable[Rejected],
    held_out: Collection[Path] = (),
) -> int:
    """Write every image's fate and return how many there are.

    A `.csv` is a table for spreadsheets, any other name holds one JSON object a line, in ASCII.

    Raises: EnvironmentFault where the file cannot be written.
    """
    if path.suffix.lower() == ".csv":
        rows = fates(index, plan, rejected, held_out)
        with whole_file(path) as part:
            return _write_csv(part, rows)
    with no_collections():
        lines = fate_lines(index, plan, rejected, held_out)
    with whole_file(path) as part, part.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(lines)
    return len(lines)


def fate_lines(
    index: DatasetIndex,
    plan: BucketPlan,
    rejected: Iterable[Rejected],
    held_out: Collection[Path] = (),
) -> list[str]:
    """Return what `json.dumps` gives for each row of `fates`, and a line end.

    Rows and their JSON take five times as long; most images share what follows their path.
    """
    refused = _refused(index, rejected)
    held = {str(path) for path in held_out}
    table = PlacementTable.of(plan.placements)
    items, numbers = table.items, table.numbers_N
    sizes_N2 = items.sizes_N2[numbers]
    facts_N13 = np.column_stack(
        [
            sizes_N2,
            table.resized_N2,
            table.crops_N4,
            table.buckets_N2,
            items.repeats_N[numbers],
            table.item_places,
        ]
    )
    scales_N, cuts_N = _scales(table), table.crop_shares()
    ends: dict[tuple[int, ...], str] = {}
    lines = []
    # Flat columns: a list for each row would keep the garbage collector busy.
    facts = zip(*facts_N13.T.tolist(), strict=True)
    for number, (path, one) in enumerate(zip(table.texts(items.paths), facts, strict=True)):
        if refused and (one[-2], one[-1], path) in refused:
            continue
        end = ends.get(one)
        if end is None:
            end = ends[one] = _end_of_line(one, float(scales_N[number]), float(cuts_N[number]))
        fate = "held out" if path in held else "used"
        lines.append(f'{{"path": {quoted(path)}, "fate": "{fate}", {end}')
    lines += [json.dumps(_refused_row(entry)) + "\n" for entry in refused.values()]
    return lines


def _end_of_line(facts: tuple[int, ...], scale: float, cut: float) -> str:
    width, height, resized_width, resized_height, *crop, bucket_width, bucket_height = facts[:-3]
    repeats, dataset, subset = facts[-3:]
    is_resized = (width, height) != (resized_width, resized_height)
    return (
        f'"reason": "{_what_was_done(scale if is_resized else None, cut)}", '
        f'"size": [{width}, {height}], "resized": [{resized_width}, {resized_height}], '
        f'"crop": {crop}, "bucket": [{bucket_width}, {bucket_height}], "repeats": {repeats}, '
        f'"scale": {round(scale, 4)!r}, "dataset": {dataset}, "subset": {subset}}}\n'
    )


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    # With a byte-order mark, since spreadsheets take a text without one for the local code page.
    # Names that are no legal text in the file system get their bytes spelled out.
    with path.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        table = csv.writer(file)
        table.writerow(FATE_COLUMNS)
        for row in rows:
            table.writerow(_cells(row))
            count += 1
    return count


def _used_rows(table: PlacementTable) -> Iterator[dict[str, Any]]:
    """Give the row of each placement. Column by column, since making a record takes longer."""
    items, numbers = table.items, table.numbers_N
    sizes_N2 = items.sizes_N2[numbers]
    scales_N = _scales(table)
    # Flat columns: a list for each row would keep the garbage collector busy.
    columns = (
        table.texts(items.paths),
        zip(*sizes_N2.T.tolist(), strict=True),
        zip(*table.resized_N2.T.tolist(), strict=True),
        zip(*table.crops_N4.T.tolist(), strict=True),
        zip(*table.buckets_N2.T.tolist(), strict=True),
        items.repeats_N[numbers].tolist(),
        scales_N.tolist(),
        table.crop_shares().tolist(),
        zip(*table.item_places.T.tolist(), strict=True),
    )
    for path, size, resized, crop, bucket, repeats, scale, cut, place in zip(*columns, strict=True):
        yield {
            "path": path,
            "fate": "used",
            "reason": _what_was_done(scale if resized != size else None, cut),
            "size": size,
            "resized": resized,
            "crop": crop,
            "bucket": bucket,
            "repeats": repeats,
            "scale": round(scale, 4),
            "dataset": place[0],
            "subset": place[1],
        }


def _scales(table: PlacementTable) -> np.ndarray:
    """Return by how much each image is enlarged. Shape: [N]."""
    sizes_N2 = table.items.sizes_N2[table.numbers_N]
    scales_N: np.ndarray = (table.resized_N2 / sizes_N2).max(axis=1)
    return scales_N


def _what_was_done(scale: float | None, cut: float) -> str:
    """Say how the picture was changed; empty where every pixel is kept."""
    done = []
    if scale is not None:
        done.append(f"enlarged {scale:.2f} times" if scale > 1 else f"shrunk to {scale:.2f}")
    if cut > 0:
        done.append(f"{cut:.1%} cut off")
    return ", ".join(done)


def _cells(row: Mapping[str, Any]) -> list[Any]:
    path = str(row["path"])
    # A spreadsheet would run such a name as a formula.
    path = f"./{path}" if path.startswith(("=", "+", "-", "@")) else path
    return [
        path,
        row["fate"],
        row["reason"],
        *(row["size"] or ("",) * 2),
        *(row["resized"] or ("",) * 2),
        *(row["crop"] or ("",) * 4),
        *(row["bucket"] or ("",) * 2),
        row["repeats"],
        "" if row["scale"] is None else row["scale"],
        row["dataset"],
        row["subset"],
    ]
