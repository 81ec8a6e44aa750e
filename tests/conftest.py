"""What every test relies on: no network, one thread, no settings of the person who runs them."""

from __future__ import annotations

import multiprocessing
import os
import socket
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
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections reach this machine only."""
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise NetworkUsed(f"connection to {address[0]}")
        real_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
