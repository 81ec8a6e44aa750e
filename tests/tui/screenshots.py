"""Writes the pictures of the dashboard that the README shows.

Run: python -m tests.tui.screenshots FOLDER
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from sdft.rundir import RunDir
from sdft.tui.draft_values import with_setting
from sdft.tui.keeping import Keeping
from sdft.tui.watch_app import WatchApp
from sdft.tui.wizard_app import WizardApp
from tests.toy_project import prepare_toy
from tests.tui.recorder import Recorder, example_run
from tests.tui.wizarding import wizard_of

FONTS = "'DejaVu Sans Mono','Cascadia Mono',Menlo,Consolas,'Noto Sans Mono CJK JP',monospace"

SHOTS = (
    ("watch", "en", ()),
    ("watch-curves", "en", ("2",)),
    ("watch-samples", "en", ("3", "left", "c", "right")),
    ("watch-ja", "ja", ()),
)
WIZARD_SHOTS = (("wizard-images", 1), ("wizard-buckets", 3), ("wizard-review", 5))

"""Name, language, keys."""


def scene(path: Path, noise: float) -> None:
    """Draw hills under a sun, less noisy the further a run is."""
    image = Image.new("RGB", (96, 96))
    draw = ImageDraw.Draw(image)
    for y in range(96):
        draw.line([(0, y), (96, y)], fill=(90 + y, 120 + y, 235 - y // 2))
    draw.ellipse([58, 10, 84, 36], fill=(255, 226, 120))
    draw.ellipse([-30, 52, 70, 150], fill=(58, 120, 70))
    draw.ellipse([30, 62, 140, 160], fill=(82, 150, 84))
    draws = random.Random(1)
    pixels = image.load()
    assert pixels is not None
    for x in range(96):
        for y in range(96):
            shake = draws.gauss(0, noise)
            pixels[x, y] = tuple(max(0, min(255, int(c + shake))) for c in pixels[x, y])
    image.save(path)


def make_runs(folder: Path) -> tuple[Recorder, Recorder]:
    first = example_run(
        folder / "hills.run", steps_done=330, prompts=("hills in the morning", "hills at noon")
    )
    for number, path in enumerate(sorted(first.run.samples.iterdir())):
        scene(path, noise=90 if number < 2 else 6)
    return first, example_run(folder / "hills-low-rate.run", steps_done=260, seed=7)


async def shoot(run: RunDir, others: list[RunDir], language: str, keys: tuple[str, ...]) -> str:
    app = WatchApp(run, others, language=language, graphics="blocks")
    async with app.run_test(size=(110, 32)) as pilot:
        await pilot.pause(1.5)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.7)
        await pilot.pause(0.5)
        return app.export_screenshot(title=f"sdft watch {run.path.name}")


async def shoot_wizard(folder: Path, num_steps: int) -> str:
    app = WizardApp(None, folder, language="en", graphics="blocks", keeping=Keeping(folder / "s"))
    async with app.run_test(size=(110, 32)) as pilot:
        await pilot.pause(1.0)
        for _ in range(num_steps):
            await pilot.press("f3")
        await pilot.pause(1.0)
        if num_steps == 1:
            await pilot.press("down")
        if num_steps == 5:
            wizard = wizard_of(app)
            changed = with_setting(wizard.draft, "resolution", "256")
            wizard.edit(with_setting(changed, "seed", "7"), "seed")
        await pilot.pause(5.0)
        return app.export_screenshot(title="sdft wizard")


def wizard_project(folder: Path) -> Path:
    """Make a project of a tiny model and pictures made for it."""
    prepare_toy(folder)
    config = (folder / "config.toml").read_text(encoding="utf-8")
    config = re.sub("output_dir = .*", "output_dir = '~/hills/output'", config)
    (folder / "config.toml").write_text(config + "min_snr_gamma = 5.0\n", encoding="utf-8")
    return folder


def own_fonts(svg: str) -> str:
    """Name fonts that people have, instead of one that is loaded from another host."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"font-family: Fira Code, monospace", f"font-family: {FONTS}", svg)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        first, second = make_runs(Path(temporary))
        for name, language, keys in SHOTS:
            others = [second.run] if name == "watch-curves" else []
            svg = asyncio.run(shoot(first.run, others, language, keys))
            (folder / f"{name}.svg").write_text(own_fonts(svg), encoding="utf-8")
        project = wizard_project(Path(temporary) / "hills")
        for name, num_steps in WIZARD_SHOTS:
            svg = asyncio.run(shoot_wizard(project, num_steps))
            (folder / f"{name}.svg").write_text(own_fonts(svg), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
