"""Stands in for virus scanners, indexers and mapped files, which on Windows hold files for a while.

Under it the calls that rename, remove and open files to write fail as they do there: with
`PermissionError` and Windows' number 5, 32 or 1224, or without a number where C opens the file.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sdft import files

ACCESS_DENIED, SHARING_VIOLATION, USER_MAPPED_FILE = 5, 32, 1224


class HeldFiles:
    """Lets every change to a file below `folder` fail some times before it works.

    `mapped` files fail until they are taken out of the set.
    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, *, failures: int) -> None:
        self.mapped: set[Path] = set()
        self.held: Counter[tuple[str, str]] = Counter()
        """How often what was done to which file failed."""
        self._folder = folder
        self._failures = failures
        self._numbers = itertools.cycle([ACCESS_DENIED, SHARING_VIOLATION])
        for name in ("replace", "rename", "unlink", "remove", "rmdir"):
            patch.setattr(os, name, self._held(name, getattr(os, name)))
        self._open = io.open
        patch.setattr(io, "open", self._opened)
        patch.setattr(files, "is_windows", lambda: True)

    def names(self, operation: str) -> set[str]:
        """Return the names of the files for which something failed at first."""
        return {Path(path).name for done, path in self.held if done == operation}

    def _held(self, name: str, original: Any) -> Any:
        def changed(*paths: Any, **options: Any) -> Any:
            # With dir_fd, which shutil.rmtree uses here, the path is the bare name.
            own = [os.fspath(path) for path in paths if isinstance(path, str | os.PathLike)]
            mapped = [path for path in own if self._is_mapped(path)]
            if mapped:
                raise held_error(USER_MAPPED_FILE, mapped[0])
            if options.get("dir_fd") is not None or any(map(self._is_ours, own)):
                self._fail_at_first(name, own[0], next(self._numbers))
            return original(*paths, **options)

        return changed

    def _opened(self, path: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        writes = bool(set(mode) & set("wax+"))
        if writes and isinstance(path, str | os.PathLike) and self._is_ours(os.fspath(path)):
            exists = os.path.exists(path)
            # A new file is nobody's yet; Windows holds those that are there.
            if exists and ("a" in mode or "+" in mode):
                self._fail_at_first(f"open {mode}", os.fspath(path), None)
        return self._open(path, mode, *more, **options)

    def _fail_at_first(self, operation: str, path: str, number: int | None) -> None:
        if self.held[operation, path] < self._failures:
            self.held[operation, path] += 1
            raise held_error(number, path)

    def _is_ours(self, path: str) -> bool:
        return Path(path).absolute().is_relative_to(self._folder)

    def _is_mapped(self, path: str) -> bool:
        """Tell whether it is a mapped file, or a folder that holds one."""
        return any(mapped.is_relative_to(Path(path).absolute()) for mapped in self.mapped)


def held_error(number: int | None, path: str) -> PermissionError:
    error = PermissionError(errno.EACCES, "The process cannot access the file", path)
    if number is not None:
        error.winerror = number  # type: ignore[attr-defined, unused-ignore]
    return error
