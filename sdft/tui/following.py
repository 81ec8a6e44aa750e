"""Reads run folders in a thread and posts what is new; the only part of the screens that reads.

Everything posted is frozen, so a handler may keep it while the thread reads on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdft.rundir import RunDir
from sdft.tui.gpu import GpuFigures, GpuProbe
from sdft.views.fates import Fates, read_fates
from sdft.views.history import RunReader, Snapshot
from sdft.views.run_state import Facts, RunState, look, run_state

LOOK_EVERY_S = 0.25
"""How often the events file is looked at; so at most four redraws a second come from a run."""

FACTS_EVERY_S = 0.5
GPU_EVERY_S = 2.0
SHOW_EVERY_S = 0.5
"""While older events are read, how often the share that was read is shown."""

QUIET_REDRAW_S = 5.0
"""How often a run without news is drawn, to show for how long there was none."""

NUM_FIRST_SLICES = 32
"""A file that is not previewed is shorter than this; it is read in 30 milliseconds."""

MAX_CONFIG_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """One run as far as it is known. Compared by identity: it holds thousands of lines."""

    run: RunDir
    snapshot: Snapshot
    facts: Facts
    state: RunState
    quiet_s: float
    """Since the last event was seen to arrive, by a clock that nobody sets."""
    gpu: GpuFigures | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenFiles:
    """Files that a run writes once."""

    config: str | None
    fates: Fates | None


class Follower:
    """Follows one run; `look` is called again and again from one thread."""

    def __init__(self, run: RunDir, *, with_files: bool, with_gpu: bool) -> None:
        self.run = run
        self._reader = RunReader(run.events_file)
        self._with_files = with_files
        self._probe = GpuProbe() if with_gpu else None
        self._facts = look(run)
        self._gpu: GpuFigures | None = None
        self._files_seen: dict[Path, int] = {}
        now_s = time.monotonic()
        self._last_news_s = now_s
        self._facts_at_s = self._gpu_at_s = self._shown_at_s = now_s
        self._is_first = True

    @property
    def is_behind(self) -> bool:
        return self._reader.is_behind

    def look(self, post: Callable[[Seen | SeenFiles], None]) -> None:
        """Read what is new and post it, if anything is."""
        changed, self._is_first = self._is_first, False
        now_s = time.monotonic()
        if changed and not self._reader.is_behind:
            self._reader.advance(NUM_FIRST_SLICES)
        elif not changed:
            was_behind = self._reader.is_behind
            news = self._reader.advance()
            if news:
                self._last_news_s = now_s
            due = now_s - self._shown_at_s >= SHOW_EVERY_S
            finished_reading = was_behind and not self._reader.is_behind
            changed = finished_reading or (news and (due or not self._reader.is_behind))
            changed = self._look_at_facts(now_s) or changed
            changed = self._look_at_gpu(now_s) or changed
        if changed:
            self._shown_at_s = now_s
            post(self._seen(now_s))
            if self._with_files and not self._reader.is_behind:
                self._post_files(post)

    def _seen(self, now_s: float) -> Seen:
        snapshot = self._reader.snapshot()
        return Seen(
            run=self.run,
            snapshot=snapshot,
            facts=self._facts,
            state=run_state(snapshot.summary, self._facts),
            quiet_s=now_s - self._last_news_s,
            gpu=self._gpu,
        )

    def _look_at_facts(self, now_s: float) -> bool:
        if now_s - self._facts_at_s < FACTS_EVERY_S:
            return False
        self._facts_at_s = now_s
        before, self._facts = self._facts, look(self.run)
        # A run that says nothing for long is shown to do so, once in a while.
        return before != self._facts or (
            self._facts.alive and now_s - self._shown_at_s >= QUIET_REDRAW_S
        )

    def _look_at_gpu(self, now_s: float) -> bool:
        if self._probe is None or not self._facts.alive or now_s - self._gpu_at_s < GPU_EVERY_S:
            return False
        self._gpu_at_s = now_s
        before, self._gpu = self._gpu, self._probe.read(self._facts.pid)
        return before != self._gpu

    def _post_files(self, post: Callable[[Seen | SeenFiles], None]) -> None:
        written = {path: _written_ns(path) for path in (self.run.config_file, self.run.fates_file)}
        if written != self._files_seen:
            self._files_seen = written
            config = _text_of(self.run.config_file)
            post(SeenFiles(config=config, fates=read_fates(self.run.fates_file)))


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _text_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_CONFIG_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
