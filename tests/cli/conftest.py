"""Running the real command in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdft.cli.app import run


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        assert self.out.isascii()
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture
def sdft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Run `sdft` with the words given, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # rich measures the terminal by these.
    monkeypatch.setenv("COLUMNS", "100")

    def sdft(*words: object) -> Ran:
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code, captured.out, captured.err)

    return sdft
