"""What every program with screens here shares: words, colours, help, the command palette."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable
from typing import ClassVar

from textual._compositor import Compositor, ReflowResult
from textual.app import App, SystemCommand
from textual.binding import ActiveBinding, Binding, BindingType
from textual.dom import DOMNode
from textual.geometry import Size
from textual.screen import Screen
from textual.widget import Widget

from sdft.language import Words
from sdft.tui.ascii_filter import AsciiFilter
from sdft.tui.screens.help import HelpScreen
from sdft.tui.themes import DARK, THEMES


def quiet_collector() -> None:
    """Keep Python's collector of cycles from holding the screen; call it when all is imported.

    A full collection takes a tenth of a second here and would come every few seconds. What was
    imported is left out from now on, and full collections come a hundred times as rarely. The
    small ones find nearly all cycles; they look at 2,000 new objects, a millisecond, and each fifth
    time at 10,000. At 50,000, they took longer than all that a step's layout and painting did.
    """
    gc.freeze()
    gc.set_threshold(2_000, 5, 5_000)


class Shell(App[None]):
    """The base of `sdft watch` and `sdft wizard`.

    Descriptions of key bindings are names of the catalogue; Worded screens show their words.
    """

    CSS_PATH: ClassVar = ["styles/shell.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "explain", "common.help"),
        Binding("q", "quit", "common.quit"),
        Binding("ctrl+q", "quit", "common.quit", show=False),
    ]
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(self, *, language: str, theme: str = DARK, ascii_only: bool = False) -> None:
        super().__init__()
        self.words = Words(language)
        self.ascii_only = ascii_only
        if ascii_only:
            # Textual has no public way to add a filter of one's own; its own are in this list.
            self._filters.append(AsciiFilter())
        for own in THEMES:
            self.register_theme(own)
        self.theme = theme

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        words = self.words
        yield SystemCommand(words("common.help"), words("palette.help"), self.action_explain)
        yield SystemCommand(words("common.theme"), words("palette.theme"), self.action_change_theme)
        for active in screen.active_bindings.values():
            binding = active.binding
            is_own = active.node is screen or getattr(active.node, "IN_PALETTE", False)
            if is_own and active.enabled and binding.description:
                yield SystemCommand(
                    binding.description, binding.key, self._runner(binding, active.node)
                )
        yield SystemCommand(words("common.quit"), words("palette.quit"), self.action_quit)

    def _runner(self, binding: Binding, node: DOMNode):  # type: ignore[no-untyped-def]
        async def run() -> None:
            await self.run_action(binding.action, default_namespace=node)

        return run

    def action_explain(self) -> None:
        """Show what the focused part is: the first of its ancestors that the catalogue knows."""
        if isinstance(self.screen, HelpScreen):
            return
        node = self.screen.focused or self.screen
        for part in node.ancestors_with_self:
            for name in (part.id, *part.classes):
                if name and f"help.{name}" in self.words:
                    self.push_screen(HelpScreen(name))
                    return


class OnceArranged(Compositor):
    """Textual 8 arranges a screen's widgets twice where one is new: a sixth of what it takes."""

    def reflow(self, parent: Widget, size: Size) -> ReflowResult:
        result = super().reflow(parent, size)
        # What has just been worked out is told to be out of date, and is worked out at the first
        # question for a widget's place.
        self._full_map_invalidated = False
        return result


class Worded(Screen[None]):
    """A screen whose key bindings are described in the person's language."""

    app: Shell

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._compositor = OnceArranged()

    def _on_timer_update(self) -> None:
        if self._layout_required and self._repaint_required and self.is_current:
            # Textual would paint what moved, and then everything.
            self._repaint_required = False
            self._compositor._dirty_regions.add(self.size.region)
        super()._on_timer_update()

    @property
    def words(self) -> Words:
        return self.app.words

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        return {
            key: active._replace(
                binding=dataclasses.replace(
                    active.binding, description=self.words.known(active.binding.description)
                )
            )
            for key, active in super().active_bindings.items()
        }
