"""The row of keys at the foot: what it names, and that a click presses it."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

from sdft.tui.widgets.key_row import KeyRow


class Keys(Screen[None]):
    AUTO_FOCUS: ClassVar = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "note('p')", "pause [red]"),
        Binding("s,x", "note('s')", "sample"),
        Binding("h", "note('h')", "hidden", show=False),
        Binding("d", "dead", "dead"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def compose(self) -> ComposeResult:
        yield Input()
        yield KeyRow()

    def action_note(self, what: str) -> None:
        self.noted.append(what)

    def action_dead(self) -> None:
        self.noted.append("dead")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if action == "dead" else True


class Shown(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.keys = Keys()
        self.bells = 0

    def on_mount(self) -> None:
        self.push_screen(self.keys)

    def bell(self) -> None:
        self.bells += 1


def play(script) -> Shown:
    app = Shown()

    async def whole() -> None:
        async with app.run_test(size=(60, 10)) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(whole())
    return app


def row_of(app: Shown) -> str:
    return str(app.screen.query_one(KeyRow).content)


def test_each_action_is_named_once_in_plain_words() -> None:
    async def script(app: Shown, pilot: Pilot[None]) -> None:
        assert row_of(app).startswith("p pause [red] s sample d dead")
        assert "hidden" not in row_of(app)

    play(script)


def test_a_click_presses_the_key_and_rings_where_it_does_nothing() -> None:
    async def script(app: Shown, pilot: Pilot[None]) -> None:
        row = row_of(app)
        for words in ("pause", "sample", "dead"):
            await pilot.click(KeyRow, offset=(row.index(words), 0))
        await pilot.pause()
        # Beside all keys nothing happens.
        await pilot.click(KeyRow, offset=(58, 0))

    app = play(script)
    assert app.keys.noted == ["p", "s"]
    assert app.bells == 1


def test_the_row_is_drawn_anew_only_where_it_changes() -> None:
    async def script(app: Shown, pilot: Pilot[None]) -> None:
        row = app.screen.query_one(KeyRow)
        updates: list[object] = []
        original = row.update
        row.update = lambda content="", **named: (updates.append(content), original(content))[1]
        app.screen.refresh_bindings()
        await pilot.pause()
        assert updates == []
        app.keys._bindings.bind("z", "note('z')", "zoom")
        app.screen.refresh_bindings()
        await pilot.pause()
        assert len(updates) == 1
        assert "z zoom" in row_of(app)

    play(script)
