"""How fast `sdft convert` copies a full-size SD 1.5, beside cp and fsync of the same bytes, and
how much memory of its own it takes.

Run: python tests/bench/bench_convert.py [FOLDER]    (15 GB of disk; minutes)

Peak anonymous memory is the highest RssAnon of the process, looked at every 10 ms: pages of files
that the system keeps in memory are not counted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fullsize import write_random_model

ROUNDS = 2
GOAL_RATIO = 2.0
GOAL_BYTES = 1.5e9

ROWS = (
    ("safetensors -> safetensors", "a.safetensors", "out.safetensors", ("--no-hash",)),
    ("  the same with a hash", "a.safetensors", "out.safetensors", ()),
    ("safetensors -> fp16", "a.safetensors", "out.safetensors", ("--no-hash", "--fp16")),
    ("safetensors -> diffusers", "a.safetensors", "out", ("--no-hash",)),
    ("ckpt -> safetensors", "a.ckpt", "out.safetensors", ("--no-hash",)),
    ("ckpt -> ckpt", "a.ckpt", "out.ckpt", ()),
)


def copy_s(source: Path, destination: Path, num_bytes: int) -> float:
    """Copy as cp does, inside the kernel, and wait until the disk has it."""
    start = time.perf_counter()
    with source.open("rb") as whole, destination.open("wb") as copy:
        left = num_bytes
        while left and (done := os.copy_file_range(whole.fileno(), copy.fileno(), left)):
            left -= done
        os.fsync(copy.fileno())
    return time.perf_counter() - start


def convert_s(source: Path, destination: Path, words: tuple[str, ...]) -> tuple[float, int]:
    """Return seconds and the peak of anonymous memory in bytes."""
    command = [sys.executable, "-m", "sdft", "convert", str(source), str(destination), "--quiet"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *words])
    peak_bytes = 0
    while process.poll() is None:
        peak_bytes = max(peak_bytes, anonymous_bytes(process.pid))
        time.sleep(0.01)
    duration_s = time.perf_counter() - start
    assert process.returncode == 0
    return duration_s, peak_bytes


def anonymous_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def main(folder: Path) -> None:
    for name in ("a.safetensors", "a.ckpt"):
        form = "ckpt" if name.endswith("ckpt") else "safetensors"
        num_bytes = write_random_model(folder / name, family="sd1", form=form)
    print(f"SD 1.5 in float32, {num_bytes / 1e9:.2f} GB; cp writes the bytes that convert wrote")
    print(f"{'':28} {'written':>9} {'cp':>7} {'convert':>8} {'ratio':>6} {'memory':>8}")
    for title, source, destination, words in ROWS:
        duration_s = bare_s = float("inf")
        # In turns, so that a disk that slows down slows both; the least is the quiet one.
        for _ in range(ROUNDS):
            target = folder / destination
            once_s, peak_bytes = convert_s(folder / source, target, words)
            duration_s = min(duration_s, once_s)
            written = size_bytes(target)
            remove(target)
            # As many bytes as convert wrote, from a file that is in the system's memory as well.
            part = folder / "part"
            copy_s(folder / source, part, written)
            bare_s = min(bare_s, copy_s(part, folder / "copy", written))
            remove(part)
            remove(folder / "copy")
        ratio = duration_s / bare_s
        verdict = "ok" if ratio <= GOAL_RATIO and peak_bytes <= GOAL_BYTES else "MISSED"
        print(
            f"{title:28} {written / 1e9:6.2f} GB {bare_s:5.1f} s {duration_s:6.1f} s "
            f"{ratio:6.2f} {peak_bytes / 1e6:5.0f} MB  {verdict}",
            flush=True,
        )
    print(f"goals: {GOAL_RATIO} times cp + fsync, {GOAL_BYTES / 1e9} GB of memory")


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=given) as made:
        main(Path(made))
