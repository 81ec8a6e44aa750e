"""Choices by name: a table from a name to `module:object`, resolved when it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from sdft.errors import UnknownName, nearest


class Registry:
    """A table of one kind of thing, looked up without regard to case.

    Nothing is imported until `get` is called, so a table may name modules that are slow or absent.
    """

    def __init__(self, kind: str, rows: Mapping[str, str]) -> None:
        self.kind = kind
        self._rows = dict(rows)
        self._by_lower = {name.lower(): name for name in rows}
        assert len(self._by_lower) == len(self._rows), f"two {kind} rows differ only in case"

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._by_lower

    def canonical(self, name: str) -> str:
        """Return the table's own spelling of `name`.

        Raises: UnknownName with the nearest known name.
        """
        try:
            return self._by_lower[name.lower()]
        except KeyError:
            raise UnknownName(
                what=f'no {self.kind} "{name}"',
                fix=nearest(name, list(self._rows)) or f"known: {', '.join(self._rows)}",
                key="unknown_name",
                values={"kind": self.kind, "name": name},
            ) from None

    def target(self, name: str) -> str:
        """Return the `module:object` text of a row without importing it."""
        return self._rows[self.canonical(name)]

    def get(self, name: str) -> Any:
        """Import and return what the row names.

        Raises: UnknownName; ImportError where the row's module is not installed.
        """
        module_name, _, object_name = self.target(name).partition(":")
        return getattr(import_module(module_name), object_name)
