"""Which keys the screens declare, and which of them a test really brought to act.

A test says what it presses: `@pytest.mark.presses("Chosen.delete")`, the class that declares the
key before the point. conftest.py watches each test and fails one that did not do so.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

import pytest
from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode

import sdft.tui
from sdft.tui.shell import Shell

_key_now: ContextVar[str] = ContextVar("key", default="")


def keys_of(kind: type) -> list[tuple[str, str]]:
    """Return each key that a class itself declares with its action."""
    pairs = []
    for binding in kind.__dict__.get("BINDINGS", ()):
        if not isinstance(binding, Binding):
            # Textual's own widgets have tuples; a class here would slip through with one.
            assert not kind.__module__.startswith("sdft."), f"{kind.__name__}: {binding}"
            continue
        pairs += [(key.strip(), binding.action) for key in binding.key.split(",")]
    if kind is Shell:
        pairs.append((Shell.COMMAND_PALETTE_BINDING, "command_palette"))
    return pairs


def name_of(kind: type, key: str, action: str) -> str:
    """Return how a test names a key; with its action where a key of the class has two."""
    is_alone = sum(one == key for one, _ in keys_of(kind)) == 1
    return f"{kind.__name__}.{key}" if is_alone else f"{kind.__name__}.{key}:{action}"


def declared_keys() -> set[str]:
    """Return the keys of every class of the interface."""
    found: set[str] = set()
    for module in walk_packages(sdft.tui.__path__, "sdft.tui."):
        for kind in vars(import_module(module.name)).values():
            is_own = inspect.isclass(kind) and kind.__module__ == module.name
            if is_own and issubclass(kind, DOMNode):
                found |= {name_of(kind, key, action) for key, action in keys_of(kind)}
    return found


@contextmanager
def watched() -> Iterator[set[str]]:
    """Collect the keys whose action ran, each by the class that declares it."""
    ran: set[str] = set()
    check_bindings, run_action = App._check_bindings, App.run_action

    async def check(app: App[Any], key: str, priority: bool = False) -> bool:
        token = _key_now.set(key)
        try:
            return await check_bindings(app, key, priority)
        finally:
            _key_now.reset(token)

    async def run(
        app: App[Any],
        action: Any,
        default_namespace: DOMNode | None = None,
        *rest: Any,
        **more: Any,
    ) -> bool:
        has_run = await run_action(app, action, default_namespace, *rest, **more)
        key = _key_now.get()
        if has_run and key and default_namespace is not None:
            for kind in type(default_namespace).__mro__:
                if (key, action) in keys_of(kind):
                    ran.add(name_of(kind, key, action))
                    break
        return has_run

    App._check_bindings, App.run_action = check, run  # type: ignore[method-assign,assignment]
    try:
        yield ran
    finally:
        App._check_bindings, App.run_action = check_bindings, run_action  # type: ignore[method-assign]


def claimed(marks: Iterable[pytest.Mark]) -> set[str]:
    return {name for mark in marks if mark.name == "presses" for name in mark.args}


def claimed_by_tests(folder: Path) -> set[str]:
    """Return what the tests of a folder say that they press; tests that run rarely do not count."""
    found: set[str] = set()
    for path in sorted(folder.glob("test_*.py")):
        module = import_module(f"tests.tui.{path.stem}")
        for name, function in vars(module).items():
            if name.startswith("test_") and not _is_rare([*_marks(module), *_marks(function)]):
                found |= claimed(_with_parameters(_marks(function)))
    return found


def _marks(of: ModuleType | Any) -> list[pytest.Mark]:
    marks = getattr(of, "pytestmark", [])
    listed = marks if isinstance(marks, list) else [marks]
    return [getattr(mark, "mark", mark) for mark in listed]


def _is_rare(marks: Iterable[pytest.Mark]) -> bool:
    return any(mark.name in ("long", "skip", "skipif", "xfail") for mark in marks)


def _with_parameters(marks: Iterable[pytest.Mark]) -> Iterator[pytest.Mark]:
    """Give the marks of a test and those of its single cases."""
    for mark in marks:
        yield mark
        if mark.name == "parametrize":
            for case in mark.args[1]:
                inner = [getattr(one, "mark", one) for one in getattr(case, "marks", ())]
                if not _is_rare(inner):
                    yield from inner
