"""The dashboard: one run's numbers, curves, pictures and log, and the keys to steer it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Input, ProgressBar, Static, TabbedContent, TabPane
from textual.worker import get_current_worker

from sdft.errors import SdftError
from sdft.rundir import RunDir
from sdft.tui import rows
from sdft.tui.breakpoints import HEIGHTS, WIDTHS
from sdft.tui.exporting import write_curves
from sdft.tui.following import LOOK_EVERY_S, Follower, Seen, SeenFiles
from sdft.tui.screens.ask import AskRuns
from sdft.tui.screens.steering import Steering
from sdft.tui.themes import curve_colors
from sdft.tui.viewing import CHARTS, Colors, Viewing, chart_names, chart_plan, step_range
from sdft.tui.widgets.chart import Chart
from sdft.tui.widgets.event_log import EventLog
from sdft.tui.widgets.key_row import KeyRow
from sdft.tui.widgets.samples import Samples
from sdft.views.find_runs import runs_below
from sdft.views.history import NUM_LOG_LINES
from sdft.views.run_state import RunState

TABS = ("overview", "curves", "samples", "images", "log", "config")

FOCUS_AT_FIRST = {"samples": "Samples", "log": "EventLog", "curves": "Chart"}
"""What takes the keys when a part comes up."""

PAN_SHARE = 0.25
"""How much of the window's width one key press moves it."""

CHARTS_EVERY_S = 2.0
"""Numbers follow the run at once, charts at this pace: all of them cost a fifth of a second."""

NUM_OVERLAYS = 5
"""There are six colours that everybody tells apart."""


class WatchScreen(Steering):
    """Shows `run`, and `others` drawn beside it."""

    CSS_PATH: ClassVar = ["../styles/watch.tcss"]
    AUTO_FOCUS: ClassVar = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "overlay", "key.overlay"),
        Binding("slash", "filter", "key.filter", show=False),
        Binding("g", "log_scale", "key.log_scale", show=False),
        Binding("m", "smoothing", "key.smoothing", show=False),
        Binding("plus,equals_sign", "zoom(0.5)", "key.zoom_in", show=False),
        Binding("minus", "zoom(2.0)", "key.zoom_out", show=False),
        Binding("0", "zoom_all", "key.zoom_all", show=False),
        Binding("left,less_than_sign", "along(-1)", "key.earlier", show=False),
        Binding("right,greater_than_sign", "along(1)", "key.later", show=False),
        Binding("up", "prompt(-1)", "key.previous_prompt", show=False),
        Binding("down", "prompt(1)", "key.next_prompt", show=False),
        Binding("c", "compare", "key.compare", show=False),
        Binding("e", "export", "key.export", show=False),
        Binding("enter", "alone", show=False),
        *(
            Binding(str(number), f"tab('{name}')", f"tab.{name}", show=False)
            for number, name in enumerate(TABS, 1)
        ),
    ]

    others: reactive[tuple[Seen, ...]] = reactive((), always_update=True)
    files: reactive[SeenFiles | None] = reactive(None, always_update=True)
    viewing: reactive[Viewing] = reactive(Viewing())

    class Looked(Message):
        """Something new was seen of a run or its files."""

        def __init__(self, news: Seen | SeenFiles) -> None:
            super().__init__()
            self.news = news

    class Exported(Message):
        """Curves were written, or could not be."""

        def __init__(self, words: str, *, failed: bool = False) -> None:
            super().__init__()
            self.words = words
            self.failed = failed

    def __init__(
        self, run: RunDir, others: Sequence[RunDir] = (), *, graphics: str = "auto"
    ) -> None:
        super().__init__(id="watch")
        self.HORIZONTAL_BREAKPOINTS = list(WIDTHS)
        self.VERTICAL_BREAKPOINTS = list(HEIGHTS)
        self._run = run
        self._other_runs = tuple(others)[:NUM_OVERLAYS]
        self._graphics = graphics
        self._charts_drawn_s = -CHARTS_EVERY_S
        self._charts_wait = False
        self._put_before: dict[str, str] = {}
        self._state_before: RunState | None = None

    def compose(self) -> ComposeResult:
        words = self.words
        yield Static(rows.literal(self._run.path.name), id="title-row")
        with Horizontal(id="progress"):
            yield Static("", id="progress-row")
            yield ProgressBar(total=None, show_eta=False, show_percentage=True, id="bar")
        yield Static("", id="alert")
        yield Static("", id="legend")
        with TabbedContent(initial="overview", id="tabs"):
            with TabPane(words("tab.overview"), id="overview", classes="watch"), Horizontal():
                with Vertical(id="overview-left"):
                    yield Chart(empty=words("curve.empty"), id="overview-loss")
                    with Vertical(id="notices-box", classes="notices"):
                        yield Static("", id="notices")
                with VerticalScroll(id="figures-box", classes="figures"):
                    yield Static("", id="figures")
            with TabPane(words("tab.curves"), id="curves", classes="chart"):
                yield Input(placeholder=words("curve.filter"), id="filter", compact=True)
                yield Static("", id="curve-settings")
                with VerticalScroll(id="charts"):
                    for name in CHARTS:
                        yield Chart(empty=words("curve.empty"), id=f"chart-{name}")
            with TabPane(words("tab.samples"), id="samples"):
                yield Samples(words=words, graphics=self._graphics, id="pictures-pane")
            with TabPane(words("tab.images"), id="images"), VerticalScroll():
                yield Static("", id="fates")
            with TabPane(words("tab.log"), id="log"):
                yield EventLog(empty=words("log.empty"), max_lines=NUM_LOG_LINES, id="event-log")
            with TabPane(words("tab.config"), id="config"), VerticalScroll():
                yield Static(Content(words("config.empty")), id="config-text")
        yield Static("", id="asked-row")
        yield KeyRow()

    def on_mount(self) -> None:
        # Only panes and charts take the focus; with the tabs in the round every second Tab
        # would go to a row of buttons that the number keys do better.
        for tabs in self.query("ContentTabs"):
            tabs.can_focus = False
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._draw_charts())
        self._follow((self._run, *self._other_runs))

    # What was read comes in here.

    @work(thread=True, exclusive=True, group="follow", description="follow runs")
    def _follow(self, runs: Sequence[RunDir]) -> None:
        worker = get_current_worker()
        followers = [
            Follower(run, with_files=number == 0, with_gpu=number == 0)
            for number, run in enumerate(runs)
        ]
        while not worker.is_cancelled:
            for follower in followers:
                follower.look(self._post)
            if not any(follower.is_behind for follower in followers):
                time.sleep(LOOK_EVERY_S)

    def _post(self, news: Seen | SeenFiles) -> None:
        self.post_message(self.Looked(news))

    def on_watch_screen_looked(self, event: Looked) -> None:
        news = event.news
        if isinstance(news, SeenFiles):
            self.files = news
        elif news.run == self._run:
            self.seen = news
        elif news.run in self._other_runs:
            others = {seen.run: seen for seen in self.others} | {news.run: news}
            self.others = tuple(others[run] for run in self._other_runs if run in others)

    # What was assigned is drawn here.

    @property
    def runs(self) -> list[Seen]:
        """The run and those beside it, each at its colour's place."""
        return [seen for seen in (self.seen, *self.others) if seen is not None]

    def watch_seen(self) -> None:
        seen, words = self.seen, self.words
        if seen is None:
            return
        with self.app.batch_update():
            self._put("#title-row", rows.title_row(seen, words))
            self._put("#progress-row", rows.progress_row(seen, words))
            summary = seen.snapshot.summary
            total = summary.run.steps if summary.run is not None else None
            self.query_one("#bar", ProgressBar).update(total=total, progress=summary.step)
            alert = rows.alert_rows(seen, words)
            self._put("#alert", alert or Content(""))
            self.query_one("#alert").display = alert is not None
            if seen.state != self._state_before:
                # The footer is made anew, so not for nothing.
                self._state_before = seen.state
                self.refresh_bindings()
            self._draw_tab(with_charts=False)
            self._draw_charts_soon()

    def _put(self, selector: str, content: Content) -> None:
        """Show a text where it is not shown already; the same again would be sent again."""
        if self._put_before.get(selector) != content.markup:
            self._put_before[selector] = content.markup
            self.query_one(selector, Static).update(content)

    def watch_files(self) -> None:
        self._draw_tab()

    def watch_others(self) -> None:
        self._draw_tab()

    def watch_viewing(self) -> None:
        self._draw_charts()

    def watch_asked(self) -> None:
        self._put("#asked-row", rows.literal(self.asked))
        self.query_one("#asked-row").display = bool(self.asked)

    def on_tabbed_content_tab_activated(self) -> None:
        self._draw_tab()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw_tab)

    def _draw_charts_soon(self) -> None:
        """Draw the charts now if the last time is long ago, else when it is."""
        due_s = self._charts_drawn_s + CHARTS_EVERY_S
        if time.monotonic() >= due_s:
            self._draw_charts()
        elif not self._charts_wait:
            self._charts_wait = True
            self.set_timer(due_s - time.monotonic(), self._draw_charts)

    def _draw_tab(self, *, with_charts: bool = True) -> None:
        """Draw the part in sight; the others are drawn when they come up."""
        seen = self.seen
        if seen is None:
            return
        match self.query_one("#tabs", TabbedContent).active:
            case "overview":
                self._draw_overview(seen)
            case "samples":
                self.query_one(Samples).show(seen.run, seen.snapshot.samples)
            case "images":
                fates = self.files.fates if self.files is not None else None
                width = self.query_one("#fates").content_size.width or self.size.width - 4
                drawn = rows.fates_rows(fates, seen, self.words, width)
                self._put("#fates", drawn)
            case "log":
                self.query_one(EventLog).show(seen.snapshot.log)
            case "config" if self.files is not None and self.files.config is not None:
                self._put("#config-text", rows.literal(self.files.config))
        if with_charts:
            self._draw_charts()

    def _draw_overview(self, seen: Seen) -> None:
        width = self.query_one("#figures-box").content_size.width
        self._put("#figures", rows.table(rows.figure_rows(seen, self.words), width))
        box = self.query_one("#notices-box")
        most = max(box.content_size.height, 1)
        self._put("#notices", rows.notice_rows(seen, self.words, most))

    def _draw_charts(self) -> None:
        part = self.query_one("#tabs", TabbedContent).active
        if self.seen is None or part not in ("overview", "curves"):
            return
        self._charts_drawn_s, self._charts_wait = time.monotonic(), False
        colors = self._colors()
        self._put("#legend", rows.legend(self.runs, colors.runs))
        self.query_one("#legend").display = bool(self.others)
        if part == "overview":
            self._plan(self.query_one("#overview-loss", Chart), "loss", colors)
            return
        names = chart_names(self.viewing, self.words)
        for name in CHARTS:
            chart = self.query_one(f"#chart-{name}", Chart)
            chart.display = name in names
            if chart.display:
                self._plan(chart, name, colors)
        settings = self.viewing.settings_words(self.words)
        if not names:
            settings = self.words("curve.none_match", pattern=self.viewing.pattern)
        self._put("#curve-settings", rows.literal(settings))

    def _plan(self, chart: Chart, name: str, colors: Colors) -> None:
        chart.source = partial(
            chart_plan,
            name,
            self.runs,
            self.viewing,
            words=self.words,
            colors=colors,
            ascii_only=self.app.ascii_only,
            with_raw=not self.others,
        )

    def _colors(self) -> Colors:
        theme = self.app.current_theme
        background = Color.parse(self.app.theme_variables["background"]).rgb
        return Colors(
            runs=[Color.parse(name).rgb for name in curve_colors(dark=theme.dark)],
            background=background,
        )

    # What the keys do.

    def action_tab(self, name: str) -> None:
        self.query_one("#tabs", TabbedContent).active = name
        self.set_focus(None)
        if name in FOCUS_AT_FIRST:
            self.query(f"#{name} {FOCUS_AT_FIRST[name]}").first().focus()

    def action_log_scale(self) -> None:
        self.viewing = replace(self.viewing, log_scale=not self.viewing.log_scale)

    def action_smoothing(self) -> None:
        self.viewing = self.viewing.next_smoothing()

    def action_zoom(self, factor: float) -> None:
        self.viewing = self.viewing.zoomed(factor, *step_range(self.runs))

    def action_zoom_all(self) -> None:
        self.viewing = replace(self.viewing, window=None)

    def action_along(self, by: int) -> None:
        """Move along the steps: the pictures where they are in sight, else the curves."""
        if self.query_one("#tabs", TabbedContent).active == "samples":
            self.query_one(Samples).scrub(by)
        else:
            self.viewing = self.viewing.moved(by * PAN_SHARE, *step_range(self.runs))

    def action_prompt(self, by: int) -> None:
        self.query_one(Samples).next_prompt(by)

    def action_compare(self) -> None:
        self.query_one(Samples).keep()

    def action_alone(self) -> None:
        """Show the focused chart alone, or all of them again."""
        if self.maximized is not None:
            self.minimize()
        elif isinstance(self.focused, Chart):
            self.maximize(self.focused, container=False)

    def action_filter(self) -> None:
        self.query_one("#tabs", TabbedContent).active = "curves"
        self.query_one("#filter", Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.viewing = replace(self.viewing, pattern=event.value)

    def on_input_submitted(self) -> None:
        self.action_tab("curves")

    def action_overlay(self) -> None:
        """Choose which of the runs nearby are drawn beside this one."""
        nearby = [run for run in runs_below(self._run.path.parent) if run != self._run]
        known = [*self._other_runs, *(run for run in nearby if run not in self._other_runs)]
        if not known:
            self.notify(self.words("ask.no_runs"))
            return
        names = [run.path.name for run in known]
        chosen = [position for position, run in enumerate(known) if run in self._other_runs]
        self.app.push_screen(AskRuns(names, chosen), partial(self._overlay, known))

    def _overlay(self, known: Sequence[RunDir], chosen: tuple[int, ...] | None) -> None:
        if chosen is None:
            return
        self._other_runs = tuple(known[position] for position in chosen)[:NUM_OVERLAYS]
        self.others = ()
        self._follow((self._run, *self._other_runs))

    def action_export(self) -> None:
        if self.seen is not None:
            self._export(self.runs, self.viewing, self._colors())

    @work(thread=True, exclusive=True, group="export", description="write curves")
    def _export(self, runs: Sequence[Seen], viewing: Viewing, colors: Colors) -> None:
        try:
            written = write_curves(self._run, runs, viewing, words=self.words, colors=colors)
        except (SdftError, OSError) as error:
            self.post_message(self.Exported(str(error), failed=True))
            return
        words = self.words("curve.exported", path=written[0], number=len(written) - 1)
        self.post_message(self.Exported(words))

    def on_watch_screen_exported(self, event: Exported) -> None:
        self.notify(event.words, severity="error" if event.failed else "information", markup=False)
