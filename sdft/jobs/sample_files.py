"""Pictures drawn from a model, as files: PNG with its parameters, an index, a contact sheet.

In: pixels and what they were drawn from. Out: files. Imports no torch. Nothing in them says who
drew them, where, or on what machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdft.files import whole_file, write_json

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

INDEX = "index.json"
SHEET = "sheet.png"

MAX_COLUMNS = 24
"""A sheet of a long run shows so many of its steps, the first and the last among them."""

CELL_PX = 192
"""Longer side of a picture on the sheet; a smaller one is enlarged."""

_GAP_PX = 6
_LINE_PX = 14


class Drawn(Protocol):
    """What a picture was drawn from."""

    @property
    def prompt(self) -> str: ...
    @property
    def negative_prompt(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def scale(self) -> float: ...
    @property
    def sampler(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One picture of a run, as its index has it."""

    step: int
    epoch: int
    number: int
    """Of its prompt in the file of prompts, from 0."""
    prompt: str
    seed: int
    file: str
    """Name in the folder of the index."""


def parameters_of(
    request: Drawn, *, step: int | None = None, hypernetworks: Sequence[tuple[str, float]] = ()
) -> str:
    """Return what a picture was drawn from, in the form that web UIs read back.

    `hypernetworks` are names and strengths.
    """
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(
        f"Steps: {request.steps}, Sampler: {request.sampler}, CFG scale: {request.scale:g}, "
        f"Seed: {request.seed}, Size: {request.width}x{request.height}"
        + ("" if step is None else f", Training step: {step}")
        + (f", Hypernets: {_strengths(hypernetworks)}" if hypernetworks else "")
    )
    return "\n".join(lines)


def _strengths(hypernetworks: Sequence[tuple[str, float]]) -> str:
    # Web UIs split this line at commas.
    return " ".join(f"{name}:{strength:g}" for name, strength in hypernetworks)


def save_picture(path: Path, rgb_HWC: np.ndarray, parameters: str) -> None:
    """Write a PNG with its parameters inside."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    inside = PngInfo()
    inside.add_itxt("parameters", parameters)
    with whole_file(path) as part:
        Image.fromarray(rgb_HWC).save(part, format="PNG", pnginfo=inside)


def free_name(folder: Path, stem: str) -> Path:
    """Return a PNG path in `folder` that nothing has yet."""
    path = folder / f"{stem}.png"
    number = 1
    while path.exists():
        path = folder / f"{stem}-{number}.png"
        number += 1
    return path


def read_index(folder: Path, *, up_to_step: int | None = None) -> tuple[Entry, ...]:
    """Return the pictures of a run, oldest first; a damaged index counts as an empty one.

    With `up_to_step`, what was drawn after that step is left out: a resumed run draws it again.
    """
    try:
        rows = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        entries = tuple(Entry(**row) for row in rows)
    except (OSError, ValueError, TypeError):
        return ()
    return tuple(one for one in entries if up_to_step is None or one.step <= up_to_step)


def write_index(folder: Path, entries: Sequence[Entry]) -> None:
    write_json(folder / INDEX, [asdict(entry) for entry in entries])


def shown_steps(steps: Sequence[int]) -> list[int]:
    """Return the steps that a sheet has room for: evenly spread, the first and last among them."""
    ordered = sorted(set(steps))
    if len(ordered) <= MAX_COLUMNS:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(column * last / (MAX_COLUMNS - 1))] for column in range(MAX_COLUMNS)]


def write_sheet(folder: Path, entries: Sequence[Entry]) -> Path | None:
    """Draw all pictures of a run on one sheet, prompt by step; return its path.

    Only the prompts of the newest pictures get a row. A picture that is gone leaves a gap.
    """
    if not entries:
        return None
    from PIL import Image, ImageDraw, ImageFont

    newest = entries[-1].step
    rows = sorted({(e.number, e.prompt, e.seed) for e in entries if e.step == newest})
    files = {(e.number, e.prompt, e.seed, e.step): folder / e.file for e in entries}
    steps = shown_steps([e.step for e in entries])
    font = ImageFont.load_default(_LINE_PX - 3)
    width = _GAP_PX + len(steps) * (CELL_PX + _GAP_PX)
    height = _LINE_PX + _GAP_PX + len(rows) * (_LINE_PX + CELL_PX + _GAP_PX)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, step in enumerate(steps):
        pen.text((_column_px(column), 2), f"step {step}", "black", font)
    for row, (number, prompt, seed) in enumerate(rows):
        top = _LINE_PX + _GAP_PX + row * (_LINE_PX + CELL_PX + _GAP_PX)
        _write_label(pen, (_GAP_PX, top), f"{prompt}  (seed {seed})", width, font)
        for column, step in enumerate(steps):
            path = files.get((number, prompt, seed, step))
            if path is not None:
                _paste(sheet, path, (_column_px(column), top + _LINE_PX))
    path = folder / SHEET
    with whole_file(path) as part:
        sheet.save(part, format="PNG")
    return path


def _column_px(column: int) -> int:
    return _GAP_PX + column * (CELL_PX + _GAP_PX)


def _write_label(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write one line, cut where the sheet ends."""
    line = " ".join(text.split())
    while line and pen.textlength(line, font) > width - 2 * _GAP_PX:
        line = line[: max(0, len(line) * 9 // 10 - 1)]
    pen.text(place, line, "black", font)


def _paste(sheet: Image.Image, path: Path, place: tuple[int, int]) -> None:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            whole = picture.convert("RGB")
    except OSError:
        return
    factor = CELL_PX / max(whole.size)
    width, height = (max(1, round(side * factor)) for side in whole.size)
    sheet.paste(whole.resize((width, height), Image.Resampling.LANCZOS), place)
