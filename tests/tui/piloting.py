"""Drives a dashboard without a terminal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from textual.pilot import Pilot

from sdft.tui.screens.watch import WatchScreen
from sdft.tui.watch_app import WatchApp

Script = Callable[[WatchApp, Pilot[None]], Awaitable[None]]
WAIT_S = 60.0


def play(app: WatchApp, script: Script, size: tuple[int, int] = (120, 40)) -> None:
    """Run a script of keys on an app that shows its run."""

    async def whole() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(pilot, lambda: screen_of(app).seen is not None)
            await script(app, pilot)

    asyncio.run(whole())


async def until(pilot: Pilot[None], condition: Callable[[], Any]) -> None:
    """Wait for something that a thread brings about."""
    for _ in range(int(WAIT_S / 0.02)):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.02)
    raise AssertionError(f"did not happen in {WAIT_S} s")


async def until_shown(app: WatchApp, pilot: Pilot[None], pattern: str) -> None:
    try:
        await until(pilot, lambda: re.search(pattern, text_of(app)))
    except AssertionError:
        raise AssertionError(f"{pattern!r} is not in\n{text_of(app)}") from None


def screen_of(app: WatchApp) -> WatchScreen:
    (screen,) = [screen for screen in app.screen_stack if isinstance(screen, WatchScreen)]
    return screen


def text_of(app: WatchApp) -> str:
    """Return the screen's characters, as a person sees them."""
    strips = app.screen._compositor.render_strips()
    filters = app.get_line_filters()
    background = app.screen.background_colors[1]
    lines = []
    for strip in strips:
        segments = list(strip)
        for line_filter in filters:
            segments = line_filter.apply(segments, background)
        lines.append("".join(segment.text for segment in segments).rstrip())
    return "\n".join(lines)
