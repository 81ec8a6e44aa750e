"""Measuring held-out images: the same numbers each time, on any number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import mse_loss

from sdft.models.bundle import load_bundle
from sdft.models.text import encode_chunks
from sdft.train.schedule import alphas_cumprod
from sdft.train.validation import EPOCH, fixed_timesteps
from tests.tensor.train import measure_in_processes
from tests.tensor.train.measure_in_processes import NUM_IMAGES, examiner_of, losses_of, measure
from tests.toy_model import save_toy_model


@pytest.fixture(scope="module")
def model(module_folder):
    folder = module_folder("toy") / "model"
    save_toy_model(folder, seed=4)
    return folder


@pytest.fixture(scope="module")
def bundle(model):
    return load_bundle(model)


def test_two_measurements_of_one_model_are_the_same_to_the_last_bit(bundle):
    accelerator = Accelerator(cpu=True)
    first = measure(bundle, accelerator)
    torch.rand(7)
    second = measure(bundle, accelerator)
    assert first.shape == (NUM_IMAGES, 3)
    assert torch.equal(first, second)


def test_two_processes_measure_what_one_does(bundle, model):
    one = measure(bundle, Accelerator(cpu=True))
    script = Path(measure_in_processes.__file__)
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(script.parents[3]),
    }
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *line, str(script), str(model)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env=environment,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (words,) = [row for row in done.stdout.splitlines() if "MEASURED" in row]
    record = json.loads(words.partition("MEASURED ")[2])
    assert record["processes"] == 2
    two = torch.tensor(record["losses"], dtype=torch.float64)
    assert (one - two).abs().max() < 1e-5


def test_a_measurement_is_the_plain_loss_at_that_timestep(bundle):
    losses_NT = measure(bundle, Accelerator(cpu=True), batch_size=1)
    examiner = examiner_of(bundle, batch_size=1)
    bars_T = alphas_cumprod()
    for row, portion in enumerate(examiner.portions):
        item = examiner.maker.items[portion.step.uses[0].placement]
        for column, timestep in enumerate(examiner.timesteps):
            batch = examiner._batch(portion.step, column)
            assert batch.timesteps_B.tolist() == [timestep]
            latents = torch.from_numpy(examiner.maker.latents.read_latents(item.latents)) * 0.18215
            noisy = (
                bars_T[timestep].sqrt() * latents
                + (1 - bars_T[timestep]).sqrt() * (batch.noise_BCHW[0])
            )
            with torch.no_grad():
                context = encode_chunks(
                    bundle.text_encoder, batch.ids_BKS, clip_skip=None, tokenizer=bundle.tokenizer
                )
                found = bundle.unet(noisy[None], torch.tensor([timestep]), context).sample
            expected = mse_loss(found, batch.noise_BCHW)
            assert losses_NT[row, column].item() == pytest.approx(expected.item(), rel=1e-5)


def test_each_image_and_timestep_has_noise_of_its_own_that_training_never_draws(bundle):
    examiner = examiner_of(bundle)
    step = examiner.portions[0].step
    batches = [examiner._batch(step, column) for column in range(3)]
    noises = [noise for batch in batches for noise in batch.noise_BCHW]
    for first in range(len(noises)):
        assert not any(torch.equal(noises[first], other) for other in noises[first + 1 :])
    assert EPOCH == 0
    assert all(use.repeat == 0 for portion in examiner.portions for use in portion.step.uses)
    # An image counts once however often it is trained on.
    assert examiner.num_images == NUM_IMAGES


def test_timesteps_are_those_of_sd_scripts_and_stay_inside_what_is_trained():
    assert fixed_timesteps(4, min_timestep=0, max_timestep=1000) == (200, 400, 600, 800)
    assert fixed_timesteps(1, min_timestep=0, max_timestep=1000) == (500,)
    assert fixed_timesteps(3, min_timestep=500, max_timestep=900) == (600, 700, 800)


def test_a_loss_that_is_no_number_comes_out_as_it_is(bundle):
    examiner = examiner_of(bundle)
    losses_NT = examiner.measure(
        lambda batch: torch.full((len(batch),), float("nan")),
        rank=0,
        num_processes=1,
        reduce_sum=lambda losses: losses,
        device=torch.device("cpu"),
    )
    assert torch.isnan(losses_NT).all()
    assert losses_of(bundle) is not None
