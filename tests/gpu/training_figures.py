"""Figures of training: its losses, its memory, its speed.

In: a Bench. Out: rows that the Bench records.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import torch

from sdft.jobs.benching.figures import reset_peak
from sdft.jobs.benching.planned import planned_bytes
from sdft.jobs.benching.random_model import fixed_batch
from tests.gpu.bench import FAST, LOW_MEMORY, Bench, batches, images_per_s, let_go, rig_of
from tests.gpu.timing import peak_bytes

H100_BF16_FLOPS = 989e12
"""Dense, without sparsity. Source: NVIDIA's data sheet of the H100 SXM."""

FLOPS_AN_IMAGE = {"sd1": 2.407e12, "sd2-base": 2.409e12, "sd2-v": 6.443e12}
"""Forward and backward of the U-Net, at 512 px (768 px for v). Source: torch's FlopCounterMode."""


def curves(bench: Bench) -> None:
    """Losses of fast, low-memory and float32 runs over 200 steps from one seed, and their speed."""
    ways = {
        "fp32": {"mixed_precision": "no", "tf32": False},
        "fast": FAST | {"compile_scope": "blocks"},
        "low memory": LOW_MEMORY,
    }
    exact = None
    for name, values in ways.items():
        smoothed = curve_of(bench, name, values)
        exact = smoothed if exact is None else exact
        bench.record(
            "curves",
            f"loss, {name}",
            [round(float(one), 4) for one in smoothed],
            unit="mean of each quarter",
            apart_from_fp32=round(float((smoothed / exact - 1).abs().max()), 4),
        )
        let_go()


def curve_of(bench: Bench, name: str, values: dict[str, Any]) -> torch.Tensor:
    """Train on eight pictures and return the mean loss of each quarter of the steps."""
    num_steps, size = (4 if bench.quick else 200), bench.count(4)
    rig = rig_of(bench, "sd1", **values, learning_rate=1e-4)
    rig.networks.park_text_encoder()
    ready = [
        fixed_batch(
            rig.networks.bundle,
            batch_size=size,
            side_px=bench.side_px(512),
            seed=step,
            num_pictures=8,
        )
        for step in range(num_steps)
    ]
    losses = []
    reset_peak(bench.device)

    def step(number: int) -> None:
        losses.append(rig.stepper.update([ready[number]]).loss / size)

    half = num_steps // 2
    times = bench.times_s(step, num_steps=half, warm_up=half, alone=name != "fp32")
    bench.record(
        "curves",
        f"speed, {name}, batch {size}",
        size / median(times),
        unit="images/s",
        peak_bytes=peak_bytes(bench.device),
    )
    return torch.stack(losses).cpu().unfold(0, num_steps // 4, num_steps // 4).mean(dim=1)


def memory(bench: Bench) -> None:
    """Peak memory of full fine-tuning, batch 1."""
    rows = (
        ("SD 1.5, 512 px, U-Net", "sd1", 512, {}, 4.5e9),
        ("the same with the text encoder", "sd1", 512, {"train_text_encoder": True}, 5.5e9),
        ("SD 2.1-v, 768 px, U-Net", "sd2-v", 768, {}, 6e9),
        ("SD 1.5, states in main memory", "sd1", 512, {"optimizer_states_on_cpu": True}, None),
        ("SD 1.5, activations too", "sd1", 512, {"cpu_offload_checkpointing": True}, None),
    )
    for name, family, side_px, more, goal in rows:
        peak, planned, rate = peak_of(bench, family, side_px, LOW_MEMORY | more)
        bench.record(
            "memory", name, peak, unit="bytes", goal=goal, images_per_s=rate, planned=planned
        )
        let_go()


def peak_of(
    bench: Bench, family: str, side_px: int, values: dict[str, Any]
) -> tuple[int | None, int, float]:
    """Return the peak of training with single images in bytes, as it was and as it was planned,
    and images a second."""
    rig = rig_of(bench, family, **values)
    planned = planned_bytes(rig, batch_size=1, side_px=bench.side_px(side_px))
    rig.networks.park_text_encoder()
    trains_text = rig.networks.trains_text
    ready = batches(bench, rig, size=1, side_px=side_px, with_contexts=not trains_text)
    reset_peak(bench.device)
    times = bench.times_s(
        lambda number: rig.stepper.update([ready[number % 2]]), num_steps=4, warm_up=2
    )
    return peak_bytes(bench.device), planned, 1 / median(times)


def speed(bench: Bench) -> None:
    """Images a second of SD 2.x base at 512 px, latents and contexts given, in several ways."""
    ways: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("compiled", 64, FAST),
        ("uncompiled", 32, {"mixed_precision": "bf16"}),
    )
    for name, size, values in ways:
        one_speed(bench, "sd2-base", name, size, values)
        let_go()


def one_speed(
    bench: Bench, family: str, name: str, size: int, values: dict[str, Any], **how: Any
) -> None:
    rig = rig_of(bench, family, **values)
    rig.networks.park_text_encoder()
    reset_peak(bench.device)
    rate, first_s = images_per_s(bench, rig, size=size, side_px=512, **how)
    bench.record(
        "speed",
        f"{family}, {name}, batch {size}",
        rate,
        unit="images/s",
        share_of_peak=rate * FLOPS_AN_IMAGE[family] / H100_BF16_FLOPS,
        first_steps_s=first_s,
        peak_bytes=peak_bytes(bench.device),
        planned=planned_bytes(rig, batch_size=bench.count(size), side_px=bench.side_px(512)),
    )


def more_speed(bench: Bench) -> None:
    """Further batch sizes and SD 1.5."""
    one_speed(bench, "sd2-base", "compiled", 96, FAST)
    let_go()
    one_speed(bench, "sd1", "compiled", 64, FAST)
