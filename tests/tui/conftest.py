"""Holds the tests of the interface to the keys that they say they press."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tui.pressing import claimed, watched


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    with watched() as ran:
        result = yield
    missing = claimed(pyfuncitem.iter_markers()) - ran
    assert not missing, f"marked as pressed, but their actions did not run: {sorted(missing)}"
    return result
