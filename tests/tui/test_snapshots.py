"""The dashboard as it looks, at two sizes and in two languages.

The expected screens are plain text in tests/golden/tui/. After a change that is meant:
UPDATE_GOLDENS=1 python -m pytest tests/tui/test_snapshots.py, then look at the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from textual.pilot import Pilot

from sdft.tui.watch_app import WatchApp
from tests.tui.piloting import play, text_of, until_shown
from tests.tui.recorder import example_run

GOLDENS = Path(__file__).parent.parent / "golden" / "tui"

SIZES = ((80, 24), (120, 40))
PARTS = {"1": "overview", "4": "images"}


@pytest.mark.parametrize("part", list(PARTS))
@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_the_screen_looks_as_before(
    tmp_path: Path, size: tuple[int, int], language: str, part: str
) -> None:
    recorder = example_run(tmp_path / "cats.run")
    shown: list[str] = []

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "[⠁-⣿]{3}")
        await pilot.press(part)
        await until_shown(app, pilot, "[⠁-⣿]{3}|512 x 576")
        shown.append(text_of(app) + "\n")

    play(WatchApp(recorder.run, language=language), script, size=size)
    golden = GOLDENS / f"watch-{PARTS[part]}-{size[0]}x{size[1]}-{language}.txt"
    if "UPDATE_GOLDENS" in os.environ:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(shown[0], encoding="utf-8")
    assert shown[0] == golden.read_text(encoding="utf-8")
