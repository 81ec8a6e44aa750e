"""Taggers for the tests of several processes; a spawned process imports them by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from sdft.labelers.taggers import open_tagger

PIDS = "SDFT_TEST_PIDS"
"""Names a folder where each process that opens a tagger leaves a file."""
DEADLY = "SDFT_TEST_DEADLY_KEY"
"""Names the image that ends the process which looks at it."""


def open_and_leave_a_file(path, choice, *, kind, device):
    (Path(os.environ[PIDS]) / str(os.getpid())).touch()
    return open_tagger(path, choice, kind=kind, device=device)


class Mortal:
    """A tagger that kills its process at one image."""

    def __init__(self, tagger):
        self._tagger = tagger

    def __getattr__(self, name):
        return getattr(self._tagger, name)

    def label(self, batch):
        if os.environ[DEADLY] in [one.key for one in batch]:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._tagger.label(batch)


def open_a_mortal_one(path, choice, *, kind, device):
    tagger, note = open_tagger(path, choice, kind=kind, device=device)
    return Mortal(tagger), note
