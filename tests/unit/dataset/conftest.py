"""An object store in memory, and what is read of it."""

from __future__ import annotations

import fsspec
import pytest


@pytest.fixture
def store():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def asked(store, monkeypatch):
    """Return a list that grows by (name, bytes) with every read."""
    reads = []
    real = type(store).cat_file

    def cat_file(self, path, start=None, end=None, **kwargs):
        content = real(self, path, start, end, **kwargs)
        reads.append((path, len(content)))
        return content

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    return reads
