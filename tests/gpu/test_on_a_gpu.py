"""What only an NVIDIA GPU can show: python -m pytest -m gpu tests/gpu"""

from __future__ import annotations

import pytest
import torch

from sdft.jobs.benching.planned import planned_bytes
from sdft.jobs.benching.random_model import fixed_batch, random_model
from sdft.jobs.benching.rig import build_rig, settings_of
from sdft.train.batch import Sender

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

PLAIN = {"device": "cuda", "learning_rate": 1e-4, "tf32": False, "channels_last": False}
LOW_MEMORY = PLAIN | {
    "mixed_precision": "bf16",
    "full_bf16": True,
    "optimizer_type": "AdamW8bit",
    "fused_backward_pass": True,
    "deterministic": True,
}


def run(num_steps=3, **values):
    """Return the losses of a toy, and the rig."""
    bundle = random_model(
        "sd1", device=torch.device("cuda"), toy=True, parts=("unet", "text_encoder")
    )
    rig = build_rig(bundle, settings_of(values))
    batches = [
        fixed_batch(bundle, batch_size=2, side_px=128, seed=step) for step in range(num_steps)
    ]
    losses = [rig.stepper.update([batch]).loss for batch in batches]
    return torch.stack(losses).cpu(), rig


def test_states_and_activations_in_main_memory_change_no_bit():
    plain, _ = run(**LOW_MEMORY, gradient_checkpointing=True)
    moved, rig = run(
        **LOW_MEMORY,
        gradient_checkpointing=True,
        optimizer_states_on_cpu=True,
        cpu_offload_checkpointing=True,
    )
    assert torch.equal(plain, moved)
    chunk = rig.networks.optimizer.chunks[0]
    state = chunk.optimizer.state[chunk.stand_ins[0]]
    rig.networks.optimizer_state()
    assert state["state1"].device.type == "cpu"
    assert state["state1"].is_pinned()


@pytest.mark.parametrize(
    "values",
    [
        {"channels_last": True},
        {"torch_compile": True},
        {"torch_compile": True, "compile_scope": "blocks"},
    ],
)
def test_other_kernels_give_the_same_losses_to_the_precision_of_bf16(values):
    plain, _ = run(**PLAIN, mixed_precision="bf16")
    other, _ = run(**PLAIN | {"mixed_precision": "bf16"} | values)
    torch.testing.assert_close(plain, other, rtol=2e-2, atol=0)


@pytest.mark.parametrize("values", [{}, LOW_MEMORY], ids=["usual", "low memory"])
def test_no_step_waits_for_the_device(values):
    _, rig = run(**PLAIN | {"mixed_precision": "bf16"} | values | {"deterministic": False})
    batch = fixed_batch(rig.networks.bundle, batch_size=2, side_px=128, seed=9)
    torch.cuda.set_sync_debug_mode("error")
    try:
        rig.stepper.update([batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_batch_that_was_sent_ahead_is_the_same_and_waits_for_nothing():
    bundle = random_model(
        "sd1", device=torch.device("cuda"), toy=True, parts=("unet", "text_encoder")
    )
    batch = fixed_batch(bundle, batch_size=4, side_px=256, seed=1)
    device = torch.device("cuda")
    sent = Sender(device)(batch)
    assert torch.equal(sent.latents_BCHW, batch.latents_BCHW), "the host's own stays"
    torch.cuda.set_sync_debug_mode("error")
    try:
        arrived = sent.to(device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert arrived.latents_BCHW.device.type == "cuda"
    assert torch.equal(arrived.latents_BCHW.cpu(), batch.latents_BCHW)
    assert torch.equal(arrived.contexts_BSD.cpu(), batch.contexts_BSD)


@pytest.mark.parametrize("values", [{}, LOW_MEMORY], ids=["usual", "low memory"])
def test_a_step_takes_the_memory_that_was_planned(values):
    _, rig = run(**PLAIN | {"mixed_precision": "bf16"} | values)
    planned = planned_bytes(rig, batch_size=8, side_px=512)
    batch = fixed_batch(rig.networks.bundle, batch_size=8, side_px=512, seed=3)
    rig.networks.park_text_encoder()
    rig.stepper.update([batch])
    torch.cuda.reset_peak_memory_stats()
    rig.stepper.update([batch])
    assert torch.cuda.max_memory_allocated() == pytest.approx(planned, rel=0.10)
