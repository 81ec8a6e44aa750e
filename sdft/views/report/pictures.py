"""The sample pictures of a report: prompt by step, each small and inside the page.

In: a RunRecord. Out: rows of cells whose pictures are data URLs.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from sdft.events import SampleSaved
from sdft.views.run_record import RunRecord, sample_file

MAX_COLUMNS = 24
"""Of a long run so many steps are shown, the first and the last among them."""

MAX_ROWS = 32
SIDE_PX = 320
QUALITY = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRow:
    """One prompt through time."""

    prompt: str
    seed: int
    cells: tuple[str | None, ...]
    """A data URL for each of the steps, none where there is no picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureTable:
    """All that is shown of a run's samples."""

    steps: tuple[int, ...]
    rows: tuple[PictureRow, ...]
    num_left_out: int
    """Pictures of steps or prompts for which there is no room."""


def picture_table(record: RunRecord) -> PictureTable:
    """Return the pictures of a run that are still there."""
    files: dict[tuple[str, int], dict[int, Path]] = {}
    for sample in record.snapshot.samples:
        path = sample_file(record, sample)
        if path is not None:
            files.setdefault((sample.prompt, sample.seed), {})[sample.step] = path
    steps = chosen_steps(record.snapshot.samples)
    rows = [
        PictureRow(
            prompt=prompt,
            seed=seed,
            cells=tuple(_data_url(by_step[step]) if step in by_step else None for step in steps),
        )
        for (prompt, seed), by_step in list(files.items())[:MAX_ROWS]
    ]
    num_shown = sum(cell is not None for row in rows for cell in row.cells)
    num_files = sum(len(by_step) for by_step in files.values())
    return PictureTable(steps=steps, rows=tuple(rows), num_left_out=num_files - num_shown)


def chosen_steps(samples: tuple[SampleSaved, ...]) -> tuple[int, ...]:
    """Return the steps that there is room for, evenly spread."""
    steps = sorted({sample.step for sample in samples})
    if len(steps) <= MAX_COLUMNS:
        return tuple(steps)
    last = len(steps) - 1
    return tuple(steps[round(n * last / (MAX_COLUMNS - 1))] for n in range(MAX_COLUMNS))


def _data_url(path: Path) -> str | None:
    # Pillow takes 40 ms to import, and many runs have no pictures.
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((SIDE_PX, SIDE_PX))
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
