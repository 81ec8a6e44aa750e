"""Progress for people, on stderr: drawn on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from sdft.events import (
    Event,
    ItemRejected,
    Notice,
    RunStopped,
    StageFinished,
    StageProgress,
    StageStarted,
    StepDone,
)
from sdft.units import format_duration
from sdft.views.fanout import Listener
from sdft.views.lines import line_of
from sdft.views.summary import Summary, reduce
from sdft.views.text import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_EVERY_S = 10.0
"""A pipe gets at most one line of progress in this time, so that a log file stays readable."""

NUM_REJECTED_SHOWN = 20
"""More images than this that are not used are counted, not listed; `fates.jsonl` has them all."""


@contextlib.contextmanager
def console_view(*, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Listener]:
    """Give a listener that shows progress while the block runs; with `quiet` it shows nothing."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        yield lambda time_s, event: None
    elif stream.isatty():
        with terminal_view(stream) as view:
            yield view
    else:
        view = PlainView(_writer(stream))
        yield view
        view.close()


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        # A reader that went away, as in `sdft train 2>&1 | head`, must not end the run.
        with contextlib.suppress(OSError, ValueError):
            print(line, file=stream, flush=True)

    return write


class PlainView:
    """Writes events as lines: what matters at once, progress at a modest rate."""

    def __init__(
        self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._summary = Summary()
        self._shown_at_s = clock()
        self._num_steps_shown = 0

    def __call__(self, time_s: float, event: Event) -> None:
        self._summary = reduce(self._summary, time_s, event)
        line = self._line(event)
        if line is not None:
            self._write(line)

    def close(self) -> None:
        """Say how many rejected images were not listed."""
        hidden = self._summary.num_rejected - NUM_REJECTED_SHOWN
        if hidden > 0:
            self._write(f"not used: {hidden} more images")

    def _line(self, event: Event) -> str | None:
        if isinstance(event, ItemRejected):
            return line_of(event) if self._summary.num_rejected <= NUM_REJECTED_SHOWN else None
        if isinstance(event, StepDone):
            self._num_steps_shown += 1
            return step_words(self._summary) if self._num_steps_shown == 1 or self._due() else None
        if isinstance(event, StageProgress):
            return stage_words(self._summary) if self._due() else None
        if isinstance(event, StageStarted):
            self._shown_at_s = self._clock()
        return line_of(event)

    def _due(self) -> bool:
        now_s = self._clock()
        if now_s - self._shown_at_s < PLAIN_EVERY_S:
            return False
        self._shown_at_s = now_s
        return True


def step_words(summary: Summary) -> str:
    """Return where the run stands: `step 12 of 400, epoch 2: loss 0.1234, ...`."""
    step = summary.last_step
    assert step is not None
    of = f" of {summary.run.steps}" if summary.run is not None else ""
    return f"step {step.step}{of}, epoch {step.epoch}: {measures(summary)}"


def measures(summary: Summary) -> str:
    """Return loss, learning rate, speed and time left."""
    step = summary.last_step
    assert step is not None
    words = [f"loss {summary.loss.mean:.4f}", f"lr {step.lr:.3g}"]
    if summary.images_per_s is not None:
        words.append(f"{summary.images_per_s:.3g} images/s")
    if summary.left_s:
        words.append(f"{format_duration(summary.left_s)} left")
    return ", ".join(words)


def stage_words(summary: Summary) -> str | None:
    """Return how far the stage at work has come."""
    stage = summary.stage
    if stage is None:
        return None
    of = f" of {stage.total}" if stage.total else ""
    rate = f", {stage.rate_per_s:.3g} {stage.unit}/s" if stage.rate_per_s else ""
    left = f", {format_duration(stage.left_s)} left" if stage.left_s else ""
    return visible(f"{stage.name}: {stage.done}{of} {stage.unit}{rate}{left}")


@contextlib.contextmanager
def terminal_view(stream: TextIO) -> Iterator[Listener]:
    """Give a listener that draws bars with rich and writes the rest above them."""
    # rich.progress takes 60 ms to import; a pipe never needs it.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream, highlight=False, emoji=False, soft_wrap=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}", markup=False),
        console=console,
        transient=True,
        refresh_per_second=5,
    )
    with progress:
        view = _TerminalView(progress)
        yield view
        view.close()


class _TerminalView:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._summary = Summary()
        self._stages: dict[str, TaskID] = {}
        self._steps: TaskID | None = None

    def __call__(self, time_s: float, event: Event) -> None:
        self._summary = reduce(self._summary, time_s, event)
        match event:
            case StageStarted():
                self._stages[event.stage] = self._progress.add_task(
                    visible(event.stage), total=event.total or None, words=""
                )
            case StageProgress() if event.stage in self._stages:
                self._progress.update(
                    self._stages[event.stage], completed=event.done, words=self._stage_words()
                )
            case StageFinished():
                task = self._stages.pop(event.stage, None)
                if task is not None:
                    self._progress.remove_task(task)
                self._print(event)
            case StepDone():
                self._draw_step(event)
            case StageProgress():
                pass
            case ItemRejected() if self._summary.num_rejected > NUM_REJECTED_SHOWN:
                pass
            case _:
                self._print(event)

    def close(self) -> None:
        hidden = self._summary.num_rejected - NUM_REJECTED_SHOWN
        if hidden > 0:
            self._progress.console.print(f"not used: {hidden} more images", markup=False)

    def _stage_words(self) -> str:
        words = stage_words(self._summary) or ""
        return words.partition(": ")[2]

    def _draw_step(self, event: StepDone) -> None:
        run = self._summary.run
        if self._steps is None:
            self._steps = self._progress.add_task(
                "steps", total=run.steps if run else None, words=""
            )
        of = f" of {run.steps}" if run else ""
        self._progress.update(
            self._steps,
            completed=event.step,
            words=f"{event.step}{of}, epoch {event.epoch}, {measures(self._summary)}",
        )

    def _print(self, event: Event) -> None:
        from rich.text import Text

        line = line_of(event)
        if line is not None:
            self._progress.console.print(Text(line, style=_style(event)))


def _style(event: Event) -> str:
    if isinstance(event, Notice):
        return {"warning": "yellow", "error": "bold red"}.get(event.severity, "")
    if isinstance(event, ItemRejected | RunStopped):
        return "yellow"
    return "dim" if isinstance(event, StageFinished) else ""
