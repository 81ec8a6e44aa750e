"""The keys that count just now, in one row at the screen's foot.

Textual's own Footer is a widget for each key, and makes all of them anew whenever the focus goes
elsewhere: half of what a change of tabs cost.
"""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.widgets import Static

KEY_STYLE = "bold $footer-key-foreground"
WORDS_STYLE = "$footer-description-foreground"


class KeyRow(Static, can_focus=False):
    """Shows each key once with what it does; a click on it presses it."""

    ALLOW_SELECT = False

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._bindings_changed)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        key = event.style.meta.get("key")
        if key is None:
            return
        if event.style.meta["enabled"]:
            self.app.simulate_key(key)
        else:
            self.app.bell()

    def _bindings_changed(self, screen: Screen[object]) -> None:
        if not screen.app.app_focus or not self.is_attached or screen is not self.screen:
            return
        shown = self._row()
        # The same again would be sent to the terminal again.
        if shown != self.content:
            self.update(shown, layout=False)

    def _row(self) -> Content:
        parts: list[Content] = []
        actions: set[str] = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            # Of several keys for one action the first is named.
            if not binding.show or binding.action in actions:
                continue
            actions.add(binding.action)
            part = Content.assemble(
                (self.app.get_key_display(binding), KEY_STYLE),
                (f" {binding.description}", WORDS_STYLE),
            )
            if not active.enabled:
                part = part.stylize("dim")
            meta = {"key": binding.key, "enabled": active.enabled}
            parts.append(part.stylize(Style.from_meta(meta)))
        return Content(" ").join(parts)
