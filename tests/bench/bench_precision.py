"""Prints how well a toy learns in each precision and low-memory way, with 5 seeds, as a table.

Each seed has a model, pictures' latents and noise of its own, the same for all precisions. What is
compared is the loss over held-out noise and timesteps after training, computed in float32.

Finished runs are kept in a file and not done again.

python tests/bench/bench_precision.py 500 5 rows.jsonl
python tests/bench/bench_precision.py 80 5 rows.jsonl memory

The low-memory ways are compared without clipping: a fused backward pass bounds the gradient of each
weight, which is another thing than bounding the whole one. Two rows show that difference by itself.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).parents[2]))

from sdft.events import ignore
from sdft.jobs.training.chunking import ChunkWishes
from sdft.jobs.training.networks import Networks, TrainedPrecision
from sdft.jobs.training.preparing import prepare_networks
from sdft.models.bundle import ModelBundle, load_bundle
from sdft.models.text import encode_chunks
from sdft.train.batch import Batch
from sdft.train.objective import EPSILON, LossRecipe
from sdft.train.schedule import alphas_cumprod
from sdft.train.step import Objective, Stepper
from sdft.train.weighting import WeightRecipe
from tests.tensor.train.engine import with_small_unet
from tests.toy_model import save_toy_model

SIDE = 16
"""Latent cells: 128 px. Below it the toy is ill-conditioned."""
BATCH = 2
NUM_PICTURES = 16
LEARNING_RATE = 5e-5
"""About 1/1000 of a typical weight of the toy: small, as the steps of fine-tuning are."""
NUM_HELD_OUT = 32


Figures = tuple[float, float, float]
"""Held-out loss before and after, seconds a step."""


ADAFACTOR = {"relative_step": False, "scale_parameter": False, "warmup_init": False}
LION_SHARE = 3 / 4
"""Of AdamW's learning rate: with it Lion learns as fast as AdamW does here, found on the first
seed without any of what is compared."""
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Variant:
    name: str
    mixed_precision: str = "no"
    precision: TrainedPrecision = field(default_factory=TrainedPrecision)
    optimizer: str = "AdamW"
    chunks: ChunkWishes = field(default_factory=ChunkWishes)
    max_grad_norm: float = 0.0

    @property
    def learning_rate(self) -> float:
        return LEARNING_RATE * (LION_SHARE if self.optimizer.startswith("Lion") else 1)

    @property
    def arguments(self) -> dict[str, bool]:
        return ADAFACTOR if self.optimizer == "Adafactor" else {}


ROUNDED = TrainedPrecision(weights=torch.bfloat16, stochastic_rounding=True)
FUSED = ChunkWishes(fused_backward=True)

PRECISIONS = (
    Variant("float32", max_grad_norm=MAX_GRAD_NORM),
    Variant("mixed bf16", "bf16", max_grad_norm=MAX_GRAD_NORM),
    Variant("full_bf16, stochastic rounding", "bf16", ROUNDED, max_grad_norm=MAX_GRAD_NORM),
    Variant(
        "full_bf16, rounding to nearest",
        "bf16",
        TrainedPrecision(weights=torch.bfloat16),
        max_grad_norm=MAX_GRAD_NORM,
    ),
)

OPTIMIZERS = ("AdamW", "AdamW8bit", "Adafactor", "Lion")
LOW_MEMORY = (
    Variant("AdamW"),
    Variant("AdamW, states in main memory", chunks=ChunkWishes(states_on_cpu=True)),
    *(Variant(f"{name}, fused", optimizer=name, chunks=FUSED) for name in OPTIMIZERS),
    *(Variant(f"{name}, fused, full_bf16", "bf16", ROUNDED, name, FUSED) for name in OPTIMIZERS),
    Variant("Adafactor", optimizer="Adafactor"),
    Variant("Lion", optimizer="Lion"),
    Variant("AdamW, clipped as a whole", max_grad_norm=MAX_GRAD_NORM),
    Variant("AdamW, fused, clipped weight by weight", chunks=FUSED, max_grad_norm=MAX_GRAD_NORM),
)
"""The first is what the others are compared with; full_bf16 with stochastic rounding."""


def pictures(bundle: ModelBundle, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return smooth latents and the contexts of captions, one for each picture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(NUM_PICTURES, 4, 4, 4, generator=generator)
    latents = torch.nn.functional.interpolate(coarse, size=SIDE, mode="bilinear")
    captions = [f"picture number {number}" for number in range(NUM_PICTURES)]
    with torch.no_grad():
        contexts = encode_chunks(
            bundle.text_encoder,
            torch.tensor([bundle.tokenizer.chunks(text, 75) for text in captions]),
            clip_skip=None,
            tokenizer=bundle.tokenizer,
        )
    return latents, contexts


def batch_of(latents: torch.Tensor, contexts: torch.Tensor, size: int, address: int) -> Batch:
    """Return a batch whose pictures, noise and timesteps follow from the address."""
    generator = torch.Generator().manual_seed(address)
    chosen = torch.randint(0, NUM_PICTURES, (size,), generator=generator)
    noise = torch.randn((size, *latents.shape[1:]), generator=generator)
    return Batch(
        latents_BCHW=latents[chosen],
        noise_BCHW=noise,
        input_noise_BCHW=noise,
        timesteps_B=torch.randint(0, 1000, (size,), generator=generator),
        ids_BKS=torch.zeros((size, 1, 77), dtype=torch.int64),
        weights_B=torch.full((size,), 1 / size),
        contexts_BSD=contexts[chosen],
    )


def stepper_of(networks: Networks, max_grad_norm: float) -> Stepper:
    return Stepper(
        accelerator=networks.accelerator,
        unet=networks.unet,
        encode_text=networks.encode_text,
        objective=Objective(
            prediction_type=EPSILON,
            alphas_bar_T=alphas_cumprod(),
            loss=LossRecipe(),
            weights=WeightRecipe(),
            input_dtype=networks.precision.weights,
        ),
        optimizer=networks.optimizer,
        parameters=networks.parameters,
        max_grad_norm=max_grad_norm,
        synced_modules=networks.trained_modules,
        rounding=networks.rounding,
        fused=networks.fused,
    )


@torch.no_grad()
def held_out_loss(bundle: ModelBundle, stepper: Stepper, batch: Batch) -> float:
    """Return the loss in float32, without any autocast, of the weights as they are."""
    unet = load_like(bundle, stepper)
    plain = replace(stepper.objective, input_dtype=torch.float32)
    assert batch.contexts_BSD is not None
    return float(plain.losses(unet, batch, batch.contexts_BSD).mean())


def load_like(bundle: ModelBundle, stepper: Stepper) -> torch.nn.Module:
    unet = type(bundle.unet).from_config(bundle.unet.config)
    unet.load_state_dict(stepper.accelerator.unwrap_model(stepper.unet).state_dict())
    return unet.eval()


def run(variant: Variant, seed: int, num_steps: int, folder: Path) -> Figures:
    """Return held-out loss before and after, and seconds a step."""
    # Fewer blocks: 10,000 steps are to take minutes.
    bundle = with_small_unet(load_bundle(folder / f"model{seed}"), seed)
    latents, contexts = pictures(bundle, seed)
    held_out = batch_of(latents, contexts, NUM_HELD_OUT, 10**9 + seed)
    AcceleratorState._reset_state()
    networks = prepare_networks(
        bundle,
        Accelerator(cpu=True, mixed_precision=variant.mixed_precision),
        train_text_encoder=False,
        learning_rate=variant.learning_rate,
        learning_rate_te=None,
        optimizer_type=variant.optimizer,
        optimizer_arguments=variant.arguments,
        clip_skip=None,
        frozen_dtype=torch.float32,
        emit=ignore,
        precision=variant.precision,
        chunks=replace(variant.chunks, max_grad_norm=variant.max_grad_norm),
        seed=seed,
    )
    stepper = stepper_of(networks, variant.max_grad_norm)
    before = held_out_loss(bundle, stepper, held_out)
    start_s = time.perf_counter()
    for step in range(num_steps):
        stepper.update([batch_of(latents, contexts, BATCH, 1000 * seed + step)])
    step_s = (time.perf_counter() - start_s) / num_steps
    return before, held_out_loss(bundle, stepper, held_out), step_s


def main(num_steps: int, num_seeds: int, file: Path, variants: tuple[Variant, ...]) -> None:
    torch.set_num_threads(1)
    done = read_rows(file)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(num_seeds):
            save_toy_model(folder / f"model{seed}", seed=seed)
            for variant in variants:
                key = (variant.name, seed, num_steps)
                if key not in done:
                    done[key] = run(variant, seed, num_steps, folder)
                    with file.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps([*key, *done[key]]) + "\n")
    print(f"{num_steps} steps, {num_seeds} seeds, AdamW at {LEARNING_RATE:g}, toy at 128 px, CPU\n")
    print("| precision | held-out loss | beside float32 | of what float32 learnt | s a step |")
    print("| --- | --- | --- | --- | --- |")
    exact = [done[variants[0].name, seed, num_steps] for seed in range(num_seeds)]
    for variant in variants:
        print_row(variant.name, [done[variant.name, s, num_steps] for s in range(num_seeds)], exact)


def read_rows(file: Path) -> dict[tuple[str, int, int], Figures]:
    """Return the runs that were done before, by variant, seed and steps."""
    rows = {}
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        name, seed, num_steps, before, after, step_s = json.loads(line)
        rows[name, seed, num_steps] = (before, after, step_s)
    return rows


def print_row(kind: str, runs: list[Figures], exact: list[Figures]) -> None:
    losses = [after for _, after, _ in runs]
    gaps = [loss - best for loss, (_, best, _) in zip(losses, exact, strict=True)]
    learnt = [before - best for before, best, _ in exact]
    shares = [1 - gap / gain for gap, gain in zip(gaps, learnt, strict=True)]
    several = len(runs) > 1
    spread = f" ± {stdev(losses):.4f}" if several else ""
    gap_spread = f" ± {stdev(gaps):.4f}" if several else ""
    print(
        f"| {kind} | {mean(losses):.4f}{spread} | {mean(gaps):+.4f}{gap_spread} |"
        f" {mean(shares):.1%} | {mean(step_s for *_, step_s in runs):.3f} |"
    )


if __name__ == "__main__":
    chosen = LOW_MEMORY if sys.argv[4:] == ["memory"] else PRECISIONS
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), chosen)
