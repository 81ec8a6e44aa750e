"""The README's tables say what the package declares."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_of_the_readme_are_those_of_the_declarations():
    check = [sys.executable, str(ROOT / "tests" / "readme_tables.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0, "run python tests/readme_tables.py"
