"""Says what is wrong with images during a run, each thing once, and ends the run past a limit.

In: the remarks of batches, in the order of training. Out: events.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdft.errors import DataError
from sdft.events import Emit, ItemRejected, Notice
from sdft.train.latents import Remark


class RemarkTeller:
    """Hears every batch's remarks."""

    def __init__(self, *, emit: Emit, max_failed: int) -> None:
        self._emit = emit
        self._max_failed = max_failed
        self._told: set[Remark] = set()
        self._failed: set[str] = set()

    def __call__(self, remarks: Sequence[Remark]) -> None:
        """Say what is new.

        Raises: DataError where more images than the limit could not be used in this process.
        """
        for remark in remarks:
            if remark in self._told:
                continue
            self._told.add(remark)
            if not remark.is_failure:
                message = f"{remark.path}: {remark.text}"
                self._emit(Notice(severity="warning", topic="image", message=message))
                continue
            self._failed.add(remark.path)
            self._emit(ItemRejected(path=remark.path, reason=remark.text))
            if len(self._failed) > self._max_failed:
                raise DataError(
                    what=f"{len(self._failed)} images could not be used during the run",
                    where=remark.path,
                    fix="mend them and resume, or raise max_rejected_share",
                )
