"""What every test relies on: no network, one thread, no settings of the person who runs them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported anywhere: results depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in [name for name in os.environ if name.startswith("SDFT_")]:
    del os.environ[name]

# As on Windows and macOS: whatever starts a process without saying how would fork on Linux.
multiprocessing.set_start_method("spawn", force=True)

LOOPBACK = ("127.", "::1", "localhost")


class NetworkUsed(AssertionError):
    """A test tried to reach another machine."""


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Let connections reach this machine only."""
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise NetworkUsed(f"connection to {address[0]}")
        real_connect(self, address)

    # Not by the fixture: what a test patches, such as how files are removed, would be undone only
    # after its folder was to be removed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        yield


@pytest.fixture(scope="module")
def module_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Path]]:
    """Return what makes a folder that all tests of a file share.

    It goes with the last of them, unless one failed: pytest keeps such folders until the end of
    the whole suite, and together they fill a disk.
    """
    made: list[Path] = []
    num_failed = request.session.testsfailed

    def make(name: str) -> Path:
        made.append(tmp_path_factory.mktemp(name))
        return made[-1]

    yield make
    if request.session.testsfailed == num_failed:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
