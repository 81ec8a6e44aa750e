"""Asks to stop, from whoever may ask: the keyboard, the system, a closing window, a time limit.

The only file of the package that knows signals that Windows lacks.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from sdft.errors import StoppedResumable
from sdft.windows import told_of_closing

INTERRUPTED = "interrupted"
TERMINATED = "terminated"
TIME_LIMIT = "time limit"
ASKED = "asked"
NO_GAIN = "the validation loss no longer falls"
"""Ends a run as its last step would: with its last checkpoint, and finished."""

# Not every system has all of them: Windows has SIGBREAK and lacks SIGHUP.
_TERMINATING = ("SIGTERM", "SIGHUP", "SIGBREAK")


class StopRequest:
    """While the block runs, the first signal asks for a stop and a second Ctrl-C stops at once.

    Called, it returns the reason to stop, or None.
    """

    def __init__(self, max_time_s: float | None = None) -> None:
        self._deadline_s = None if max_time_s is None else time.monotonic() + max_time_s
        self._reason: str | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._window = contextlib.ExitStack()

    def __call__(self) -> str | None:
        over = self._deadline_s is not None and time.monotonic() >= self._deadline_s
        if over:
            self.ask(TIME_LIMIT)
        return self._reason

    def ask(self, reason: str) -> None:
        """Ask for a stop after the step in progress."""
        self._reason = self._reason or reason

    def wait(self, seconds: float) -> None:
        """Return when a stop is asked for, or after so many seconds."""
        deadline_s = time.monotonic() + seconds
        while self() is None and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def __enter__(self) -> StopRequest:
        self._listen(signal.SIGINT, self._on_interrupt)
        for name in _TERMINATING:
            if hasattr(signal, name):
                self._listen(getattr(signal, name), self._on_terminate)
        self._window.enter_context(told_of_closing(lambda: self.ask(TERMINATED)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._window.close()

    def _listen(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        try:
            self._previous[number] = signal.signal(number, handler)
        except ValueError:
            # Only the main thread may listen; elsewhere the caller asks by itself.
            return

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._reason == INTERRUPTED:
            raise KeyboardInterrupt
        self._reason = INTERRUPTED

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self.ask(TERMINATED)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While the block runs, a signal to end raises where the work is, so that it puts away what is
    finished.

    Raises: StoppedResumable.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise StoppedResumable(what=f"stopped: {TERMINATED}", fix="the same command goes on")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
