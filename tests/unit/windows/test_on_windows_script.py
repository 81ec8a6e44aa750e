"""The script that fills the README's table on a person's Windows machine."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tests" / "gpu" / "on_windows.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("on_windows", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    sys.modules["on_windows"] = module
    spec.loader.exec_module(module)
    return module


def test_the_readme_has_a_row_for_each_figure_and_says_which_were_never_run(script) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- windows -->\n(.*?)<!-- end of windows -->", readme, re.DOTALL)
    rows = [line.strip("| ").split(" | ") for line in block.strip().splitlines()[2:]]
    assert [title for title, _ in rows] == [title for title, _ in script.ROWS.values()]
    assert all(figure for _, figure in rows)


def test_what_cannot_be_run_is_written_down_with_the_reason(script, tmp_path, capsys) -> None:
    trial = script.Trial(tmp_path, quick=True)

    def fails(trial):
        trial.sdft("verify", tmp_path / "nothing.safetensors")

    rows = {"machine": ("the machine", lambda trial: "mine"), "broken": ("broken", fails)}
    script.ROWS, kept = rows | {"left": ("left out", fails)}, script.ROWS
    try:
        text = script.table(script.fill(trial, ["machine", "broken"]))
    finally:
        script.ROWS = kept
    assert "| the machine | mine |" in text
    assert "| broken | not run: sdft verify ended with 2" in text
    assert "| left out | not run |" in text
    capsys.readouterr()


@pytest.mark.skipif(sys.platform == "win32", reason="there it can be run")
def test_a_row_that_only_windows_can_fill_says_so_elsewhere(script, tmp_path) -> None:
    with pytest.raises(script.NotRun, match="only Windows"):
        script.mapped(script.Trial(tmp_path, quick=True))


def test_an_unknown_row_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--rows", "speed"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"no row speed" in done.stderr


def test_the_batch_file_has_the_line_ends_of_windows_and_starts_the_script() -> None:
    content = (SCRIPT.with_suffix(".bat")).read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") > 3
    assert rb"python tests\gpu\on_windows.py %*" in content
