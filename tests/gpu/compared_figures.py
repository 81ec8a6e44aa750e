"""Figures of one way beside another: kernels of attention, a plain script, the bare loop, the VAE.

In: a Bench. Out: rows that the Bench records.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch

from sdft.jobs.benching.bare import BareLoop
from tests.gpu.bench import Bench, batches, let_go, rig_of


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
            median(times) * 1000,
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
    bench.record("plain", f"sd2-base, batch {size}", size / median(times), unit="images/s")


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
    bare_s = median(bench.times_s(bare.step, num_steps=10, warm_up=2))
    engine_s = median(
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
