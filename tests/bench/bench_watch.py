"""How fast the dashboard opens a recorded run of two million events, and what memory it takes.

Run: python tests/bench/bench_watch.py [EVENTS]

Each goal is checked in a process of its own. "opens" is from the process' start to a screen with
the last step and a curve on it; the whole file is read on behind it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

OPENS_WITHIN_S = 2.0
PAINTS_WITHIN_S = 1.0
MEMORY_MB = 300.0

CHILD = """
import asyncio, resource, sys, time
from pathlib import Path
begun_s = float(sys.argv[3])
sys.path.insert(0, sys.argv[2])
from sdft.rundir import RunDir
from sdft.tui.watch_app import WatchApp
from tests.tui.piloting import screen_of, text_of
app = WatchApp(RunDir(Path(sys.argv[1])), language="en")
async def whole():
    async with app.run_test(size=(120, 40)) as pilot:
        print(time.time() - begun_s, time.process_time())
        while not any(0x2800 < ord(sign) < 0x2900 for sign in text_of(app)):
            await asyncio.sleep(0.01)
        print(time.time() - begun_s, time.process_time())
        while screen_of(app).seen.snapshot.share_read < 1:
            await asyncio.sleep(0.05)
        print(time.time() - begun_s)
        print(screen_of(app).seen.snapshot.num_events)
asyncio.run(whole())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
"""


def write_run(path: Path, num_events: int) -> None:
    from sdft.events import EventLine, StepDone
    from tests.tui.recorder import Recorder

    recorder = Recorder(path, steps=num_events)
    recorder.lock()
    recorder.begin("long")
    step = StepDone(
        step=1, epoch=1, loss=0.123456789, lr=1e-6, bucket=(512, 512), grad_norm=0.523456,
        items=4, duration_s=0.512345, memory_bytes=9_000_000_000,
    )  # fmt: skip
    head, tail = EventLine.write(step, 1_790_000_000.123).split('"step": 1,')
    with recorder.run.events_file.open("a") as file:
        file.writelines(f'{head}"step": {number},{tail}\n' for number in range(1, num_events))


def main(num_events: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.run"
        begun_s = time.monotonic()
        write_run(path, num_events)
        size_mb = (path / "events.jsonl").stat().st_size / 1e6
        print(
            f"{num_events:,} events, {size_mb:.0f} MB, written in "
            f"{time.monotonic() - begun_s:.1f} s"
        )
        # The kernel's own time of a process' start is known to whole seconds of the boot only.
        begun = str(time.time())
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CHILD, str(path), str(ROOT), begun],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    painted_s, painted_cpu_s, opened_s, opened_cpu_s, whole_s, found, memory_mb = map(
        float, ended.stdout.split()
    )
    rows = (
        ("first screen painted", painted_s, PAINTS_WITHIN_S, "s"),
        ("  of it processor time", painted_cpu_s, PAINTS_WITHIN_S, "s"),
        ("opened: last step and curve", opened_s, OPENS_WITHIN_S, "s"),
        ("  of it processor time", opened_cpu_s, OPENS_WITHIN_S, "s"),
        ("most memory held", memory_mb, MEMORY_MB, "MB"),
    )
    for name, value, goal, unit in rows:
        verdict = "ok" if value <= goal else "MISSED"
        print(f"{name:30} {value:8.2f} {unit:2}  (goal {goal:g} {unit})  {verdict}")
    print(f"{'every event read, behind it':30} {whole_s:8.2f} s   ({found:,.0f} events)")
    return int(any(value > goal for _, value, goal, _ in rows))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000))
