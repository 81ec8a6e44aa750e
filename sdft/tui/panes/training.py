"""How it is trained: a preset, the settings that people change, all others folded by group."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Collapsible, Select, Static

from sdft.config.preset import PRESETS
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.tui.draft import Draft
from sdft.tui.draft_values import Checked, stated, typed_of, with_preset
from sdft.tui.figure import ChartLine, ChartPlan
from sdft.tui.panes.fields import FIELDS_OF
from sdft.tui.panes.pane import Edit, Pane
from sdft.tui.rate_curve import rate_points
from sdft.tui.widgets.chart import Chart
from sdft.tui.widgets.setting_field import SettingField
from sdft.views.series import Point

FIELDS = FIELDS_OF["training"]


STEPS_UNKNOWN = 1000
"""Length of the curve's axis while it is not known how many steps an epoch has."""

CURVE_COLOR = (122, 162, 247)


def folded_groups() -> dict[str, list[str]]:
    """Return the names of all other settings by group."""
    shown = {name for names in FIELDS_OF.values() for name in names}
    groups: dict[str, list[str]] = {}
    for setting in settings_of(TrainingSettings):
        if setting.name not in shown:
            groups.setdefault(setting.group, []).append(setting.name)
    return groups


class TrainingPane(Pane):
    """Fields on the left, the learning rate's curve on the right."""

    def __init__(self) -> None:
        super().__init__(id="step-training")
        self._points: tuple[list[Point], int] | None = None

    def compose(self) -> ComposeResult:
        words = self.words
        yield Static(Content(words("training.title")), classes="pane-title")
        with Horizontal():
            with VerticalScroll(id="training-fields", can_focus=False):
                with Horizontal(classes="setting-row"):
                    yield Static(Content(words("training.preset")), classes="setting-name")
                    rows = [(self._preset_words(name), name) for name in PRESETS]
                    yield Select(rows, prompt="-", compact=True, id="preset")
                for name in FIELDS:
                    yield SettingField(name)
                for group, names in folded_groups().items():
                    name = words(_group(group)) if _group(group) in words else group
                    title = words("training.group", group=name, number=len(names))
                    yield Collapsible(title=title, id=_id(group), classes="group")
            with Vertical(id="training-right"):
                yield Chart(empty=words("training.no_curve"), id="rate")
                yield Static(Content(words("training.signs")), id="signs")

    def _preset_words(self, name: str) -> str:
        known = f"preset.{name}"
        return f"{name}: {self.words(known)}" if known in self.words else name

    def first_focus(self) -> None:
        self.query_one("#preset").focus()

    def show(self, draft: Draft, checked: Checked) -> None:
        super().show(draft, checked)
        preset = stated(draft, "preset").value
        with self.prevent(Select.Changed):
            chosen = self.query_one("#preset", Select)
            chosen.value = preset if preset in PRESETS else Select.NULL
        if checked.config is not None:
            self._show_curve(checked.config.training)

    def _show_curve(self, settings: TrainingSettings) -> None:
        total = self.wizard.total_steps(settings) or STEPS_UNKNOWN
        points = rate_points(settings, total)
        if (points, total) != self._points:
            self._points = (points, total)
            source: Callable[[], ChartPlan] = partial(
                _curve,
                points,
                self.words("curve.lr"),
                self.app.ascii_only,  # type: ignore[attr-defined]
            )
            self.query_one("#rate", Chart).source = source

    @on(Select.Changed, "#preset")
    def _preset(self, event: Select.Changed) -> None:
        event.stop()
        name = "" if event.value is Select.NULL else str(event.value)
        if name != typed_of(stated(self.wizard.draft, "preset").value):
            self.post_message(Edit("preset", partial(with_preset, name=name)))

    async def on_collapsible_expanded(self, event: Collapsible.Expanded) -> None:
        """Make a group's fields when it is opened: all of them at once would hold up the screen."""
        event.stop()
        await self._fill(event.collapsible)

    async def _fill(self, group: Collapsible) -> None:
        contents = group.query_one(Collapsible.Contents)
        if not contents.children:
            names = next(names for one, names in folded_groups().items() if _id(one) == group.id)
            fields = [SettingField(name) for name in names]
            await contents.mount_all(fields)
            self.show_fields(fields, self.wizard.draft, self.wizard.checked)

    async def open_field(self, name: str) -> None:
        """Unfold the group that a setting is in, so that it can take the keys."""
        for group, names in folded_groups().items():
            if name in names:
                folded = self.query_one(f"#{_id(group)}", Collapsible)
                await self._fill(folded)
                folded.collapsed = False


def _curve(points: list[Point], title: str, ascii_only: bool) -> ChartPlan:
    line = ChartLine(name=title, points=points, color=CURVE_COLOR)
    return ChartPlan(title=title, lines=(line,), ascii_only=ascii_only)


def _id(group: str) -> str:
    return f"group-{group.replace(' ', '-')}"


def _group(group: str) -> str:
    return f"group.{group.replace(' ', '_')}"
