"""How long a save holds the training up, beside the time of one copy in memory.

    python tests/bench/bench_saving.py [--gigabytes 1] [--step-s 2] [--folder DIR]

A state of random weights and two moments each is saved with the writer that a run uses, while
another thread's worth of arithmetic stands for the forward and backward pass after it. A full-size
state of SD 1.x is 10.3 GB with AdamW (5.2 GB with an 8-bit one), and twice that in memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil
import torch

from sdft.events import ignore
from sdft.files import remove
from sdft.train.background import BackgroundWriter, SaveJob
from sdft.train.plain_tensors import on_cpu
from sdft.train.state import Identity, Progress, damage
from sdft.train.state_write import StateContent, write_state

TENSOR_BYTES = 16 << 20
"""About the size of the larger weights of a U-Net."""


def state_of(num_bytes: int) -> StateContent:
    count = max(3, num_bytes // TENSOR_BYTES)
    tensors = [torch.rand(TENSOR_BYTES // 4) for _ in range(count)]
    third = count // 3
    moments = {
        number: {"exp_avg": tensors[third + number], "exp_avg_sq": tensors[2 * third + number]}
        for number in range(third)
    }
    return StateContent(
        modules={"unet": {f"w{number}": tensors[number] for number in range(third)}},
        optimizer={"optimizer": {"state": moments}},
        progress=Progress(step=1),
        identity=Identity(),
        events_bytes=0,
    )


def work_for(seconds: float) -> float:
    """Multiply matrices for about so long; return how long it took for 100 of them."""
    one = torch.rand(512, 512)
    started_s = time.perf_counter()
    count = 0
    while time.perf_counter() - started_s < seconds:
        one = (one @ one).clamp(0, 1)
        count += 1
    return (time.perf_counter() - started_s) / count * 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--step-s", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    num_bytes = int(asked.gigabytes * 1e9)
    if 2.2 * num_bytes > psutil.virtual_memory().available:
        raise SystemExit("there is not enough memory for the state and its copy")
    torch.set_num_threads(1)
    content = state_of(num_bytes)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        started_s = time.perf_counter()
        copy = on_cpu(dict(content.modules)), on_cpu(content.optimizer)
        copy_s = time.perf_counter() - started_s
        del copy

        quiet = work_for(asked.step_s)
        writer = BackgroundWriter(emit=ignore)
        path = Path(folder) / "step00000001"
        job = SaveJob(
            name="state",
            content=content,
            num_bytes=content.num_bytes,
            copied=lambda live: live.copied(),
            write=lambda held: write_state(path, held) and None,
        )
        started_s = time.perf_counter()
        writer.submit([job])
        submit_s = time.perf_counter() - started_s
        beside_copy = work_for(asked.step_s)
        started_s = time.perf_counter()
        writer.wait_for_copies()
        stall_s = submit_s + time.perf_counter() - started_s
        beside_write = work_for(asked.step_s)
        started_s = time.perf_counter()
        writer.wait()
        total_s = asked.step_s * 2 + time.perf_counter() - started_s
        assert not damage(path)
        remove(path)

        started_s = time.perf_counter()
        write_state(path, content)
        plain_s = time.perf_counter() - started_s
    print(f"state                                {content.num_bytes / 1e9:8.2f} GB")
    print(f"one copy in memory                   {copy_s:8.3f} s")
    print(f"the loop waits for a background save {stall_s:8.3f} s  ({stall_s / copy_s:.2f} copies)")
    print(f"the loop waits without background    {plain_s:8.3f} s  ({plain_s / copy_s:.2f} copies)")
    print(f"written, flushed and read back after {total_s:8.3f} s")
    print(f"arithmetic beside the copy           {beside_copy / quiet:8.2f} times as long")
    print(f"arithmetic beside the writing        {beside_write / quiet:8.2f} times as long")


if __name__ == "__main__":
    main()
