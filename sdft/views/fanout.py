"""One `Emit` for many listeners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sdft.events import Event

Listener = Callable[[float, Event], None]
"""Gets the time in seconds since 1970 and the event."""


class Fanout:
    """Gives every event its time and hands it to each listener, one event after the other.

    Events may come from several threads; listeners are never called by two at once. What a
    listener raises goes to whoever emitted: a record that cannot be written ends the work.
    """

    def __init__(
        self, listeners: Sequence[Listener], clock: Callable[[], float] = time.time
    ) -> None:
        self._listeners = tuple(listeners)
        self._clock = clock
        # Reentrant, because a listener may have something to say itself.
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            time_s = self._clock()
            for listener in self._listeners:
                listener(time_s, event)
