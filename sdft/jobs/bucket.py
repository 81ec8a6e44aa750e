"""`sdft bucket`: which training size every image gets, and what becomes of each.

In: a Config. Out: `fates.jsonl` (or a .csv), a table of the buckets, and on request a picture of
it, and each image's bucket in the metadata. No pixels are read.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdft.config.folders import folder_of
from sdft.config.load import Config
from sdft.dataset.records import BucketPlan
from sdft.dataset.report import BucketRow, bucket_rows, mean_crop, waste, write_fates
from sdft.dataset.tables import PlacementTable
from sdft.dataset.train_resolution import write_train_resolutions
from sdft.errors import UserError
from sdft.events import Emit
from sdft.jobs.sources import plan_dataset
from sdft.urls import UrlPath

FATES_FILE = "fates.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketResult:
    """What a plan comes to."""

    images: int
    used: int
    rejected: int
    batches: int
    """In an epoch, on one process: forward passes."""
    rows: tuple[BucketRow, ...]
    waste: float
    """Share of the places in batches that stay empty, 0 .. 1."""
    mean_crop: float
    """Mean share of an image that is cut off, 0 .. 1."""
    fates: Path
    plot: Path | None = None
    resolutions_written: int | None = None
    """Entries of metadata that got another `train_resolution`; none where none was asked for."""

    def as_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "used": self.used,
            "rejected": self.rejected,
            "batches": self.batches,
            "buckets": [asdict(row) for row in self.rows],
            "waste": self.waste,
            "mean_crop": self.mean_crop,
            "fates": str(self.fates),
            "plot": None if self.plot is None else str(self.plot),
            "resolutions_written": self.resolutions_written,
        }


def run_bucket(
    config: Config,
    *,
    fates: Path | None,
    emit: Emit,
    plot: Path | None = None,
    write_resolutions: bool = False,
    command_line: str = "sdft bucket",
) -> BucketResult:
    """Plan the buckets and write every image's fate.

    `fates` is where: .jsonl or .csv; none puts `fates.jsonl` beside the dataset file. `plot` is
    where the table is drawn, as PNG. With `write_resolutions` metadata files get each image's
    bucket.

    Raises: DataError, UserError; EnvironmentFault where a file cannot be written.
    """
    if plot is not None and plot.suffix.lower() != ".png":
        raise UserError(what="the picture of the buckets is a PNG", where=f"--plot {plot}")
    planned = plan_dataset(config, emit=emit)
    path = fates if fates is not None else folder_of(config) / FATES_FILE
    write_fates(path, planned.index, planned.plan, planned.rejected)
    rows = bucket_rows(planned.plan, planned.batch_sizes)
    if plot is not None:
        from sdft.dataset.bucket_plot import draw_buckets

        draw_buckets(plot, rows, planned.batch_sizes)
    return BucketResult(
        images=len(planned.index.items) + len(planned.index.rejected),
        used=len(planned.plan.placements),
        rejected=len(planned.rejected),
        batches=sum(row.batches for row in rows),
        rows=rows,
        waste=waste(rows, planned.batch_sizes),
        mean_crop=mean_crop(rows),
        fates=path,
        plot=plot,
        resolutions_written=(
            _write_resolutions(config, planned.plan, command_line) if write_resolutions else None
        ),
    )


def _write_resolutions(config: Config, plan: BucketPlan, command_line: str) -> int:
    """Write every metadata file once; return how many entries changed.

    Raises: UserError where there is no metadata file, or one that stands in several subsets.
    """
    table = PlacementTable.of(plan.placements)
    places = table.item_places.tolist()
    paths = table.texts(table.items.paths)
    buckets = table.buckets_N2.tolist()
    done: set[Path] = set()
    changed = 0
    for number, dataset in enumerate(config.datasets):
        for position, subset in enumerate(dataset.subsets):
            file = subset.metadata_file
            if file is None:
                continue
            if isinstance(file, UrlPath):
                raise UserError(
                    what="nothing is written to object stores",
                    where=str(file),
                    fix="keep the metadata file on this machine; the images may stay there",
                )
            if file in done:
                raise UserError(
                    what="several subsets use this file, and an image has one train_resolution",
                    where=str(file),
                )
            done.add(file)
            changed += write_train_resolutions(
                file,
                subset.image_dir,
                {
                    os.path.abspath(path): (bucket[0], bucket[1])
                    for path, place, bucket in zip(paths, places, buckets, strict=True)
                    if place == [number, position]
                },
                recursive=subset.recursive,
                command_line=command_line,
            )
    if not done:
        raise UserError(
            what="there is no metadata file to write train_resolution into",
            where="--write_train_resolution",
            fix="name a metadata_file in the dataset file; `sdft metadata merge` makes one",
        )
    return changed
