"""`sdft bucket`: which training size every image gets, and what becomes of each.

In: a Config. Out: `fates.jsonl` (or a .csv) and a table of the buckets. No pixels are read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdft.config.load import Config
from sdft.dataset.report import BucketRow, bucket_rows, waste, write_fates
from sdft.events import Emit
from sdft.jobs.sources import folder_of, plan_dataset

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
    fates: Path

    def as_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "used": self.used,
            "rejected": self.rejected,
            "batches": self.batches,
            "buckets": [asdict(row) for row in self.rows],
            "fates": str(self.fates),
        }


def run_bucket(config: Config, *, fates: Path | None, emit: Emit) -> BucketResult:
    """Plan the buckets and write every image's fate.

    `fates` is where: .jsonl or .csv; none puts `fates.jsonl` beside the dataset file.

    Raises: DataError, EnvironmentFault where the file cannot be written.
    """
    planned = plan_dataset(config, emit=emit)
    path = fates if fates is not None else folder_of(config) / FATES_FILE
    write_fates(path, planned.index, planned.plan, planned.rejected)
    rows = bucket_rows(planned.plan, planned.batch_sizes)
    return BucketResult(
        images=len(planned.index.items) + len(planned.index.rejected),
        used=len(planned.plan.placements),
        rejected=len(planned.rejected),
        batches=sum(row.batches for row in rows),
        rows=rows,
        waste=waste(rows, planned.batch_sizes),
        fates=path,
    )
