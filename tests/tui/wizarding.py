"""Drives the wizard without a terminal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from textual.pilot import Pilot

from sdft.tui.keeping import Keeping
from sdft.tui.screens.wizard import WizardScreen
from sdft.tui.widgets.setting_field import SettingField
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import text_of, until

Script = Callable[[WizardApp, Pilot[None]], Awaitable[None]]

SIZES = ((96, 64), (64, 96), (64, 64), (128, 64))


def project(folder: Path, *, captions: bool = True) -> Path:
    """Make a folder with a folder of four images, their captions, and a file that is no model."""
    images = folder / "images"
    images.mkdir(parents=True)
    for number, size in enumerate(SIZES):
        Image.new("RGB", size, (60 * number, 120, 200)).save(images / f"{number}.png")
        if captions:
            (images / f"{number}.txt").write_text(f"a cat, number {number}", encoding="utf-8")
    (images / "notes.md").write_text("x", encoding="utf-8")
    save_file({"layer.weight": np.zeros((2, 2), np.float32)}, folder / "other.safetensors")
    return folder


def app_for(
    folder: Path,
    path: Path | None = None,
    *,
    language: str = "en",
    state: str = "state",
    **options: Any,
) -> WizardApp:
    keeping = Keeping(folder.parent / f"{state} of {folder.name}")
    app = WizardApp(path, folder, language=language, keeping=keeping, **options)
    app.animation_level = "none"
    return app


def ready(folder: Path, *, language: str = "en", graphics: str = "blocks") -> WizardApp:
    """Return a wizard on a project with images and, for a model, a file of the right name."""
    (folder / "dataset.toml").write_text(
        "[general]\ncaption_extension = '.txt'\nenable_bucket = true\n\n[[datasets]]\n"
        "resolution = 64\nmin_bucket_reso = 32\nmax_bucket_reso = 128\nbucket_reso_steps = 8\n\n"
        "[[datasets.subsets]]\nimage_dir = 'images'\n",
        encoding="utf-8",
    )
    (folder / "config.toml").write_text(
        "dataset_config = 'dataset.toml'\npretrained_model_name_or_path = 'other.safetensors'\n"
        f"output_dir = '{folder / 'out'}'\nseed = 1\n",
        encoding="utf-8",
    )
    return app_for(folder, language=language, graphics=graphics)


def play(app: WizardApp, script: Script, size: tuple[int, int] = (120, 40)) -> None:
    async def whole() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(pilot, lambda: app.screen.is_mounted and len(app.screen_stack) > 1)
            await script(app, pilot)

    asyncio.run(whole())


def wizard_of(app: WizardApp) -> WizardScreen:
    (screen,) = [screen for screen in app.screen_stack if isinstance(screen, WizardScreen)]
    return screen


async def checked(app: WizardApp, pilot: Pilot[None]) -> None:
    """Wait until the checks of the present draft have come in."""
    wizard = wizard_of(app)
    await until(pilot, lambda: wizard.is_checked)
    await pilot.pause(0.05)


async def type_in(pilot: Pilot[None], text: str) -> None:
    for character in text:
        await pilot.press(NAMES.get(character, character))


NAMES = {
    "/": "slash", ".": "full_stop", "-": "minus", "_": "underscore", " ": "space", ":": "colon",
    "\\": "backslash", ",": "comma", "=": "equals_sign", "[": "left_square_bracket",
    "]": "right_square_bracket",
}  # fmt: skip


async def shown(app: WizardApp, pilot: Pilot[None], pattern: str) -> None:
    try:
        await until(pilot, lambda: re.search(pattern, text_of(app)))
    except AssertionError:
        raise AssertionError(f"{pattern!r} is not in\n{text_of(app)}") from None


async def focus(app: WizardApp, pilot: Pilot[None], name: str) -> SettingField:
    """Give the keys to a setting's field, on whichever step it is."""
    wizard_of(app).go_to_field(name)
    fields: list[SettingField] = []

    def has_keys() -> bool:
        fields[:] = [one for one in app.screen.query(SettingField) if one.setting.name == name]
        return bool(fields) and app.focused in fields[0].query("*")

    await until(pilot, has_keys)
    return fields[0]


def toml(path: Path) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(path.read_text(encoding="utf-8"))
