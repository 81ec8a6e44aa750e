"""The wizard is there at once, stays quick on very many images, and never brings torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from textual.pilot import Pilot

from sdft.tui.folder_look import look_at
from sdft.tui.screens.wizard import STEPS
from sdft.tui.widgets.folder_tree import FolderTree
from sdft.tui.wizard_app import WizardApp
from tests.slowness import slowness
from tests.tui.handlers import LONGEST_S, quiet, timed_handlers
from tests.tui.piloting import text_of, until
from tests.tui.wizarding import (
    Script,
    checked,
    focus,
    play,
    project,
    ready,
    shown,
    wizard_of,
)

NUM_IMAGES = 200_000

FIRST_PAINT = """
import asyncio, sys, time
from pathlib import Path
from sdft.tui.keeping import Keeping
from sdft.tui.wizard_app import WizardApp
folder = Path(sys.argv[1])
app = WizardApp(None, folder, language="en", keeping=Keeping(folder / "state"))
async def whole():
    async with app.run_test(size=(120, 40)) as pilot:
        while not app.screen.query("#model-facts"):
            await pilot.pause()
        painted_s = time.process_time()
        heavy = {"torch", "diffusers", "transformers", "accelerate", "sdft.jobs"}
        print(painted_s, sorted(heavy & set(sys.modules)))
        for _ in range(6):
            await pilot.press("f3")
        print(sorted(heavy & set(sys.modules)))
asyncio.run(whole())
"""


def test_the_first_step_is_painted_within_a_second_and_without_torch(tmp_path: Path) -> None:
    painted: list[float] = []
    # Three times at most: files that were not read for long take their time.
    while len(painted) < 3 and min(painted, default=9.0) >= 1:
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FIRST_PAINT, str(tmp_path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        first, later = ended.stdout.splitlines()
        painted_s, _, heavy = first.partition(" ")
        assert (heavy, later) == ("[]", "[]")
        painted.append(float(painted_s))
    # Processor time, at the machine's usual speed: what other programs of a busy machine take, from
    # the caches too, is not ours.
    assert min(painted) < slowness(), painted


def many_images(folder: Path, number: int) -> Path:
    images = folder / "many"
    images.mkdir()
    for at in range(number // 2):
        (images / f"{at}.png").touch()
        (images / f"{at}.txt").touch()
    for at in range(number // 2, number):
        (images / f"{at}.png").touch()
    return images


def test_counts_of_very_many_images_come_bit_by_bit(tmp_path: Path) -> None:
    images = many_images(tmp_path, 20_000)
    *_, last = look_at(images)
    assert (last.images, last.beside, last.is_done) == (20_000, ((".txt", 10_000),), True)
    assert last.coverage(".txt") == 0.5


def test_no_step_holds_the_screen_for_50_ms(tmp_path: Path) -> None:
    """Measures what the event loop does in one go, from the first look at each step to the last."""
    assert min(measured(tmp_path, walk_through)) < LONGEST_S


@pytest.mark.long
def test_counting_very_many_images_never_holds_the_screen_for_50_ms(tmp_path: Path) -> None:
    """Measures what the event loop does in one go while 200,000 images are counted."""
    many_images(tmp_path, NUM_IMAGES)
    assert min(measured(tmp_path, look_into_a_full_folder)) < LONGEST_S


def measured(folder: Path, script: Script) -> list[float]:
    """Return the longest handler of each of at most three rounds, at the machine's usual speed.

    Units: seconds.
    """
    longest_s: list[float] = []
    # Once more where it was too slow: a machine that is busy with other things is, now and then.
    while len(longest_s) < 3 and min(longest_s, default=1.0) >= LONGEST_S:
        project(folder / f"round {len(longest_s)}")
        app = ready(folder / f"round {len(longest_s)}", graphics="none")
        before = slowness()
        took_s = longest_handler_s(app, script)
        # Cores that others share are slower for everything: the limit is for their usual speed.
        longest_s.append(took_s / max(before, slowness()))
    print(f"longest handler: {1000 * min(longest_s):.0f} ms at the usual speed")
    return longest_s


def longest_handler_s(app: WizardApp, script: Script) -> float:
    longest_s = 0.0

    async def timed(app: WizardApp, pilot: Pilot[None]) -> None:
        nonlocal longest_s
        await checked(app, pilot)
        with timed_handlers() as busy_s:
            await script(app, pilot)
        longest_s = max(busy_s)

    with quiet():
        play(app, timed)
    return longest_s


async def walk_through(app: WizardApp, pilot: Pilot[None]) -> None:
    wizard = wizard_of(app)
    for key, steps in (("f3", STEPS[1:]), ("f2", STEPS[-2::-1])):
        for step in steps:
            await pilot.press(key)
            await until(pilot, lambda step=step: wizard.step == step)
            await until(pilot, wizard.pane.is_filled.is_set)
            await pilot.pause(0.2)
    await focus(app, pilot, "min_snr_gamma")
    await pilot.press("5", "f1")
    await pilot.pause(0.2)
    await pilot.press("escape", "ctrl+o")
    await pilot.pause(0.2)
    await pilot.press("escape", "ctrl+z")
    await pilot.pause(0.2)


async def look_into_a_full_folder(app: WizardApp, pilot: Pilot[None]) -> None:
    await pilot.press("f3")
    await shown(app, pilot, "▶ images")
    app.screen.query_one(FolderTree).path = app.cwd.parent
    await shown(app, pilot, "▶ many")
    # From folder to folder, as somebody does who looks for the right one.
    for key in ("down", "down", "up", "down", "space", "down", "up", "up"):
        await pilot.press(key)
    await until(pilot, lambda: "200,000" in text_of(app))
