"""Takes every figure that needs an NVIDIA GPU, in one go: correctness, memory, speed.

    python tests/gpu/measure.py OUT_FOLDER [--rows curves,memory,...] [--quick]

Models have the published sizes and random weights; nothing is downloaded. Each row of figures is
printed as it comes and written to OUT_FOLDER/figures.jsonl; a group that fails is named, and the
next one goes on. `--quick` runs the same code on toys and on whatever device there is.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from sdft.jobs.benching.bare import BareLoop
from sdft.jobs.benching.planned import planned_bytes
from sdft.jobs.benching.random_model import fixed_batch, random_model
from sdft.jobs.benching.rig import Rig, build_rig, settings_of
from sdft.jobs.benching.timing import median_s, peak_bytes, reset_peak, step_times_s
from sdft.models.bundle import ModelBundle
from sdft.train.batch import Batch

H100_BF16_FLOPS = 989e12
"""Dense, without sparsity. Source: NVIDIA's data sheet of the H100 SXM."""

FLOPS_AN_IMAGE = {"sd1": 2.407e12, "sd2-base": 2.409e12, "sd2-v": 6.443e12}
"""Forward and backward of the U-Net, at 512 px (768 px for v). Source: torch's FlopCounterMode."""

FAST = {"mixed_precision": "bf16", "torch_compile": True}
LOW_MEMORY = {
    "mixed_precision": "bf16",
    "full_bf16": True,
    "optimizer_type": "AdamW8bit",
    "fused_backward_pass": True,
    "gradient_checkpointing": True,
}


@dataclass(frozen=True)
class Bench:
    """Where and how large things are measured."""

    device: torch.device
    quick: bool
    record: Callable[..., None]
    timing: Path
    """A file that is there while something is timed."""

    def model(self, family: str, *parts: str, seed: int = 0) -> ModelBundle:
        return random_model(
            family, device=self.device, parts=parts or ("unet",), toy=self.quick, seed=seed
        )

    def side_px(self, wanted: int) -> int:
        return 128 if self.quick else wanted

    def count(self, wanted: int) -> int:
        return 2 if self.quick else wanted

    def times_s(
        self, step: Callable[[int], object], *, num_steps: int, warm_up: int, alone: bool = True
    ) -> list[float]:
        """Time steps; whoever shares the device holds still while the file `timing` is there."""
        if alone:
            self.timing.touch()
            time.sleep(0.3)
        try:
            return step_times_s(
                step, num_steps=self.count(num_steps), warm_up=warm_up, device=self.device
            )
        finally:
            self.timing.unlink(missing_ok=True)


def rig_of(bench: Bench, family: str, *parts: str, seed: int = 0, **values: Any) -> Rig:
    if bench.quick:
        # Inductor takes minutes on a CPU.
        values |= {"dynamo_backend": "eager"} if values.get("torch_compile") else {}
    model = bench.model(family, "unet", "text_encoder", *parts, seed=seed)
    return build_rig(model, settings_of({"device": bench.device.type} | values))


def batches(bench: Bench, rig: Rig, *, size: int, side_px: int, **how: Any) -> list[Batch]:
    return [
        fixed_batch(
            rig.networks.bundle,
            batch_size=size,
            side_px=bench.side_px(side_px),
            seed=seed,
            **how,
        )
        for seed in range(2)
    ]


def images_per_s(
    bench: Bench, rig: Rig, *, size: int, side_px: int, steps: int = 12, warm_up: int = 3
) -> tuple[float, float]:
    """Return images a second (median) and the seconds that the first steps took."""
    size = bench.count(size)
    ready = batches(bench, rig, size=size, side_px=side_px)
    start_s = time.perf_counter()
    for number in range(bench.count(warm_up)):
        rig.stepper.update([ready[number % 2]])
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    first_s = time.perf_counter() - start_s
    times = bench.times_s(
        lambda number: rig.stepper.update([ready[number % 2]]), num_steps=steps, warm_up=0
    )
    return size / median_s(times), first_s


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
        size / median_s(times),
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
    return peak_bytes(bench.device), planned, 1 / median_s(times)


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


def attention(bench: Bench) -> None:
    """The attention kernels on the largest self-attention of SD 2.x, forward and backward."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shape = (2, 2, 64, 64) if bench.quick else (64, 5, 4096, 64)
    dtype = torch.float32 if bench.quick else torch.bfloat16
    tensors = [
        torch.randn(shape, device=bench.device, dtype=dtype, requires_grad=True) for _ in range(3)
    ]
    kernels = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)
    for kernel in (SDPBackend.MATH,) if bench.quick else (None, *kernels):

        def step(number: int, kernel: SDPBackend | None = kernel) -> None:
            with sdpa_kernel(kernel) if kernel else contextlib.nullcontext():
                mixed = torch.nn.functional.scaled_dot_product_attention(*tensors)
            mixed.sum().backward()

        times = bench.times_s(step, num_steps=5, warm_up=2)
        bench.record(
            "attention",
            kernel.name.lower() if kernel else "torch's choice",
            median_s(times) * 1000,
            unit="ms",
        )


def against_plain(bench: Bench) -> None:
    """A plain training script: VAE and text encoder in each step, nothing compiled."""
    size = bench.count(16)
    rig = rig_of(bench, "sd2-base", "vae", mixed_precision="bf16", channels_last=False, tf32=False)
    bundle = rig.networks.bundle
    half = torch.bfloat16
    vae = bundle.vae.to(bench.device, half)
    text_encoder = bundle.text_encoder.to(bench.device, half)
    side_px = bench.side_px(512)
    pixels_BCHW = torch.rand(size, 3, side_px, side_px, device=bench.device, dtype=half)
    (batch, _) = batches(bench, rig, size=size, side_px=512)
    ready = batch.to(bench.device)
    optimizer = torch.optim.AdamW(rig.networks.parameters, lr=1e-5)

    def step(number: int) -> None:
        with torch.no_grad():
            latents = vae.encode(pixels_BCHW).latent_dist.sample() * 0.18215
            contexts = text_encoder(ready.ids_BKS[:, 0])[0]
        noisy = latents + ready.noise_BCHW.to(half)
        predicted = rig.networks.unet(noisy, ready.timesteps_B, contexts, return_dict=False)[0]
        torch.nn.functional.mse_loss(predicted.float(), ready.noise_BCHW).backward()
        torch.nn.utils.clip_grad_norm_(rig.networks.parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    times = bench.times_s(step, num_steps=8, warm_up=2)
    bench.record("plain", f"sd2-base, batch {size}", size / median_s(times), unit="images/s")


def overhead(bench: Bench) -> None:
    """The engine's step beside the bare loop, and what `deterministic` costs."""
    for deterministic in (False, True):
        engine, bare = beside_bare(bench, deterministic=deterministic)
        name = "deterministic" if deterministic else "as it is"
        bench.record("overhead", f"sd1, batch 8, {name}", engine, unit="images/s", bare=bare)
        let_go()
    torch.use_deterministic_algorithms(False)


def beside_bare(bench: Bench, *, deterministic: bool) -> tuple[float, float]:
    """Return images a second of the engine's step and of the bare loop."""
    size = bench.count(8)
    rig = rig_of(bench, "sd1", mixed_precision="bf16", deterministic=deterministic)
    ready = batches(bench, rig, size=size, side_px=512)
    bare = BareLoop(rig.networks, rig.stepper, ready[0])
    bare_s = median_s(bench.times_s(bare.step, num_steps=10, warm_up=2))
    engine_s = median_s(
        bench.times_s(
            lambda number: rig.stepper.update([ready[number % 2]]), num_steps=10, warm_up=2
        )
    )
    return size / engine_s, size / bare_s


def caching(bench: Bench) -> None:
    """The whole pass of caching beside the VAE alone; a script of its own measures it."""
    script = Path(__file__).parents[1] / "bench" / "bench_cache_vae.py"
    words = ["2", "64", "1"] if bench.quick else ["1024", "512", "16"]
    ended = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False
    )
    bench.record(
        "caching", "cache-latents", ended.stdout.splitlines()[-3:], unit="", code=ended.returncode
    )
    if ended.returncode:
        print(ended.stderr[-2000:])


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


def let_go() -> None:
    """Free the model of the row before: hooks and optimizers hold their weights in circles."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
