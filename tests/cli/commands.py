"""One command in this process, as a tuple; for tests that look at several commands in a row."""

import json

from sdft.cli.app import run


def sdft(capsys, *words):
    """Return (exit code, JSON result or stdout, stderr) of one command."""
    code = run([str(word) for word in words])
    printed = capsys.readouterr()
    result = json.loads(printed.out) if "--json" in words else printed.out
    return code, result, printed.err
