"""Takes every figure that needs an NVIDIA GPU, in one go: correctness, memory, speed.

    python tests/gpu/measure.py OUT_FOLDER [--rows curves,memory,...] [--quick]

Models have the published sizes and random weights; nothing is downloaded. Each row of figures is
printed as it comes and written to OUT_FOLDER/figures.jsonl; a group that fails is named, and the
next one goes on. `--quick` runs the same code on toys and on whatever device there is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from tests.gpu.bench import Bench, let_go
from tests.gpu.compared_figures import against_plain, attention, caching, overhead
from tests.gpu.training_figures import curves, memory, more_speed, speed

GROUPS: dict[str, Callable[[Bench], None]] = {
    "memory": memory,
    "speed": speed,
    "attention": attention,
    "plain": against_plain,
    "overhead": overhead,
    "curves": curves,
    "caching": caching,
    "more": more_speed,
}


def facts() -> Iterator[tuple[str, str]]:
    import diffusers
    import transformers

    yield "torch", torch.__version__
    yield "diffusers", diffusers.__version__
    yield "transformers", transformers.__version__
    if torch.cuda.is_available():
        yield "card", torch.cuda.get_device_name()


def main(arguments: argparse.Namespace) -> int:
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "figures.jsonl"

    def record(group: str, name: str, value: Any, **more: Any) -> None:
        line = json.dumps({"group": group, "name": name, "value": value, **more})
        print(f"{time.monotonic() - start_s:6.1f} {line}", flush=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")

    start_s = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(device, arguments.quick, record, arguments.out / "timing")
    for name, value in facts():
        record("facts", name, value)
    failed = 0
    for name in arguments.rows.split(",") if arguments.rows else GROUPS:
        try:
            GROUPS[name](bench)
        # One group that fails must not cost the others: a GPU is not to be had every day.
        except Exception:  # noqa: BLE001
            failed += 1
            record(name, "failed", traceback.format_exc()[-1500:])
        let_go()
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", default="")
    parser.add_argument("--quick", action="store_true")
    sys.exit(main(parser.parse_args()))
