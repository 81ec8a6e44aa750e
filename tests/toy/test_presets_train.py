"""Presets train: the two with the rarest combinations of settings, for an epoch of the toy."""

import pytest
from accelerate.state import AcceleratorState


@pytest.mark.parametrize(
    "name", [pytest.param("sd15-6gb", marks=pytest.mark.long), "small-dataset"]
)
def test_a_preset_trains(toy, name):
    AcceleratorState._reset_state(reset_partial_state=True)
    run = toy(preset=name, max_train_epochs=1, learning_rate=1e-5)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run.error is None
    assert all(0 < loss < 100 for loss in run.losses.values())
    assert run.result.checkpoint.suffix == ".safetensors"
