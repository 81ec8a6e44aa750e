"""How it is trained: a preset, the settings that people change, all others folded by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Select, Static

from sdft.config.preset import PRESETS
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.tui.draft import Draft
from sdft.tui.draft_values import Checked, stated, typed_of, with_preset
from sdft.tui.figure import ChartLine, ChartPlan
from sdft.tui.panes.fields import FIELDS_OF
from sdft.tui.panes.pane import SLICE, Edit, Make, Pane
from sdft.tui.rate_curve import rate_points
from sdft.tui.widgets.chart import Chart
from sdft.tui.widgets.choice import Choice
from sdft.tui.widgets.fold import Fold
from sdft.tui.widgets.ground import Column, Row, Scroll
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
        super().__init__("step-training")
        self._points: tuple[list[Point], int] | None = None

    def compose(self) -> ComposeResult:
        words = self.words
        yield Static(Content(words("training.title")), classes="pane-title")
        with Row():
            with Scroll(id="training-fields", can_focus=False):
                with Row(classes="setting-row"):
                    yield Static(Content(words("training.preset")), classes="setting-name")
                    rows = [(self._preset_words(name), name) for name in PRESETS]
                    yield Choice(rows, prompt="-", compact=True, id="preset")
                yield from self.fields(FIELDS[:SLICE])
                yield Column(id="training-more", classes="second")
            with Column(id="training-right", classes="second"):
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

    # The groups that are folded.

    def later(self) -> tuple[str, Sequence[Make]]:
        return "#training-more", [*self.later_fields(FIELDS), self._folds]

    def _folds(self) -> Sequence[Fold]:
        words = self.words
        folds = []
        for group, names in folded_groups().items():
            name = words(_group(group)) if _group(group) in words else group
            title = words("training.group", group=name, number=len(names))
            folds.append(Fold(title, id=_id(group)))
        return folds

    def on_fold_toggled(self, event: Fold.Toggled) -> None:
        event.stop()
        fold = event.fold
        if fold.is_open:
            self.run_worker(self._unfold(fold), group=str(fold.id))
        else:
            self.query(f"#{fold.id}-fields").remove()

    async def _unfold(self, fold: Fold) -> None:
        """Make a group's fields; all groups' fields at once would hold up the screen."""
        if self.query(f"#{fold.id}-fields"):
            return
        names = next(names for group, names in folded_groups().items() if _id(group) == fold.id)
        place = Column(id=f"{fold.id}-fields", classes="folded")
        await self.query_one("#training-more").mount(place, after=fold)
        await place.mount_all(self.fields(names[:SLICE]))
        await self.mount_in_slices(place, self.later_fields(names))
        place.scroll_visible()

    async def open_field(self, name: str) -> None:
        await super().open_field(name)
        for group, names in folded_groups().items():
            if name in names:
                fold = self.query_one(f"#{_id(group)}", Fold)
                with self.prevent(Fold.Toggled):
                    fold.is_open = True
                await self._unfold(fold)


def _curve(points: list[Point], title: str, ascii_only: bool) -> ChartPlan:
    line = ChartLine(name=title, points=points, color=CURVE_COLOR)
    return ChartPlan(title=title, lines=(line,), ascii_only=ascii_only)


def _id(group: str) -> str:
    return f"group-{group.replace(' ', '-')}"


def _group(group: str) -> str:
    return f"group.{group.replace(' ', '_')}"
