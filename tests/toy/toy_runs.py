"""What tests of whole toy runs share."""

from __future__ import annotations

import signal

import torch
from safetensors.torch import load_file

from sdft.events import Notice, StepDone

CONSTANT = {"lr_scheduler": "constant"}


def stop_after(step):
    def listen(event):
        if isinstance(event, StepDone) and event.step == step:
            signal.raise_signal(signal.SIGTERM)

    return listen


def assert_same_weights(one, other):
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def messages(run, topic):
    return [one.message for one in run.of(Notice) if one.topic == topic]
