"""How long `--help` takes, beside importing typer and rich alone.

Run: python tests/bench/bench_help.py [ROUNDS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

BARE = ("-c", "import typer, rich.console")

ROWS = (
    ("sdft --help", ("-m", "sdft", "--help"), 2.5),
    ("sdft train --help", ("-m", "sdft", "train", "--help"), 2.5),
    ("sdft train --help-all", ("-m", "sdft", "train", "--help-all"), 6.0),
)
"""Name, words, and the goal: how many times the bare imports it may take."""


def measure_s(words: tuple[str, ...]) -> float:
    # An installed package has its bytecode; without it every start would compile the sources.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True, env=environment)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    commands = {"import typer, rich.console": BARE} | {name: words for name, words, _ in ROWS}
    best_s = dict.fromkeys(commands, float("inf"))
    # In turns, so that a machine that slows down slows all of them; the least is the quiet one.
    for _ in range(rounds):
        for name, words in commands.items():
            best_s[name] = min(best_s[name], measure_s(words))
    bare_s = best_s["import typer, rich.console"]
    print(f"{'import typer, rich.console':28} {bare_s * 1000:6.0f} ms")
    for name, _, goal in ROWS:
        ratio = best_s[name] / bare_s
        verdict = "ok" if ratio <= goal else "TOO SLOW"
        print(f"{name:28} {best_s[name] * 1000:6.0f} ms {ratio:5.2f} x  (goal {goal} x)  {verdict}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
