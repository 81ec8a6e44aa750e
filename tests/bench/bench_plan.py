"""Prints the planned memory of training steps beside what torch's profiler sees allocated.

The engine's own step of a U-Net of the published sizes, at 128 to 256 px, on a CPU: its weights,
states and gradients as they are, and every allocation in the order of the timeline. Ends with 1
where a plan is more than 10 % off.

python tests/bench/bench_plan.py [--only NAME]     takes up to 20 GB of memory, some minutes
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from math import prod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch.profiler import ProfilerActivity, profile

from sdft.events import ignore
from sdft.jobs.benching.random_model import fixed_batch, random_model
from sdft.jobs.benching.rig import Rig, build_rig, settings_of
from sdft.jobs.planning.asking import PlannedModel, Shape, Use, memory_question
from sdft.jobs.planning.machine import cpu_seconds_a_step
from sdft.models.family import FAMILIES
from sdft.models.published import published_sizes
from sdft.planning.memory import plan_memory

ALLOWED = 0.10

LOW_MEMORY = {
    "mixed_precision": "bf16",
    "full_bf16": True,
    "optimizer_type": "AdamW8bit",
    "fused_backward_pass": True,
    "gradient_checkpointing": True,
}
CONFIGURATIONS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "float32, AdamW": ("sd1", 128, 1, {}),
    "8 bits, all twice": (
        "sd2-base",
        256,
        2,
        {"optimizer_type": "AdamW8bit", "gradient_checkpointing": True},
    ),
    # In bf16, which few processors multiply in: slow.
    "low memory": ("sd1", 128, 1, LOW_MEMORY),
    "fused, float32": ("sd1", 256, 4, {"fused_backward_pass": True}),
}


def planned(family: str, side_px: int, batch_size: int, values: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes and the operations of a planned step."""
    question = memory_question(
        settings_of(values),
        PlannedModel(family=FAMILIES[family], sizes=published_sizes(family)),
        Use(on_gpu=False, reads_words=False, encodes_images=False),
        Shape(side_px, side_px, batch_size),
    )
    assert question is not None
    plan = plan_memory(question)
    return plan.peak_bytes, plan.flops


def standing_bytes(rig: Rig) -> int:
    """Return the bytes of weights and of the optimizer's states, as they are."""
    found: dict[int, int] = {}

    def walk(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            for one in value.values():
                walk(one)
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)

    walk(list(rig.networks.plain_unet.parameters()))
    walk(list(rig.networks.optimizer.state.values()))
    return sum(found.values())


def measured(
    family: str, side_px: int, batch_size: int, values: dict[str, Any]
) -> tuple[int, float]:
    """Return the peak of bytes in the second step by the profiler's timeline, and its seconds."""
    bundle = random_model(family, device=torch.device("cpu"), parts=("unet", "text_encoder"))
    rig = build_rig(bundle, settings_of({"device": "cpu"} | values), emit=ignore)
    # On a CPU everything is in main memory; what the plan is asked for is the U-Net alone.
    batches = [
        fixed_batch(bundle, batch_size=batch_size, side_px=side_px, seed=seed) for seed in range(2)
    ]
    rig.stepper.update([batches[0]])
    before = standing_bytes(rig)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        start_s = time.perf_counter()
        rig.stepper.update([batches[1]])
        seconds = time.perf_counter() - start_s
    return before + peak_of_timeline(profiler), seconds


def peak_of_timeline(profiler: Any) -> int:
    """Return the largest sum of allocations less what was given back, in the order of time."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted(
        (one["ts"], one["args"]["Bytes"]) for one in events if one.get("name") == "[memory]"
    )
    held = peak = 0
    for _, num_bytes in changes:
        held += num_bytes
        peak = max(peak, held)
    return peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CONFIGURATIONS)
    only = parser.parse_args().only
    worst = 0.0
    for name, (family, side_px, batch_size, values) in CONFIGURATIONS.items():
        if only not in (None, name):
            continue
        plan_bytes, flops = planned(family, side_px, batch_size, values)
        true_bytes, seconds = measured(family, side_px, batch_size, values)
        weights = sum(map(prod, published_sizes(family).unet.tensors().values()))
        planned_s = cpu_seconds_a_step(flops, weights)
        gc.collect()
        off = plan_bytes / true_bytes - 1
        worst = max(worst, abs(off))
        print(
            f"{name:26} {family:9} {side_px} px x {batch_size}: planned {plan_bytes / 1e9:6.2f} GB,"
            f" measured {true_bytes / 1e9:6.2f} GB ({off:+.1%}); a step {seconds:5.1f} s, planned"
            f" {planned_s:5.1f} s",
            flush=True,
        )
    print(f"worst {worst:.1%}, allowed {ALLOWED:.0%}")
    return 0 if worst <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
