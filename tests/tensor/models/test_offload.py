"""What checkpointed blocks begin with, kept elsewhere: the same bits, and nothing else is."""

from __future__ import annotations

from functools import partial
from itertools import groupby

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from sdft.jobs.benching.random_model import random_model
from sdft.models.checkpointing import checkpoint_blocks
from sdft.models.offload import Offload


class Counting(Offload):
    """Says what was sent away, and in which order it came back."""

    def __init__(self):
        super().__init__(least_bytes=1)
        self.sent, self.back = [], []

    def _send(self, tensor, call):
        one = super()._send(tensor, call)
        self.sent.append(one)
        return one

    def _fetch(self, one):
        if one.fetched is None:
            self.back.append(one)
        super()._fetch(one)


def gradients_with(call, names=()):
    """Return the gradients of a toy's pass and of its latents."""
    unet = random_model("sd1", device=torch.device("cpu"), toy=True, parts=("unet",)).unet
    unet.train().requires_grad_(True)
    checkpoint_blocks(unet, names, call=call)
    draws = torch.Generator().manual_seed(3)
    latents_BCHW = torch.randn(2, 4, 16, 16, generator=draws)
    contexts_BSD = torch.randn(2, 77, 768, generator=draws)
    predicted = unet(latents_BCHW, torch.tensor([3, 700]), contexts_BSD, return_dict=False)[0]
    predicted.square().mean().backward()
    return [weight.grad for weight in unet.parameters()]


@pytest.mark.parametrize("names", [(), ("down_blocks.0", "up_blocks.3")], ids=["all", "two"])
def test_the_gradients_have_the_same_bits(names):
    plain = gradients_with(partial(checkpoint, use_reentrant=False), names)
    moved = gradients_with(Counting(), names)
    assert all(torch.equal(one, other) for one, other in zip(plain, moved, strict=True))


def test_each_input_goes_and_comes_once_and_one_block_ahead():
    offload = Counting()
    gradients_with(offload)
    assert len(offload.sent) > 20
    assert sorted(map(id, offload.back)) == sorted(map(id, offload.sent))
    calls = [list(group) for _, group in groupby(offload.sent, key=lambda one: id(one.call))]
    assert [one for call in reversed(calls) for one in call] == offload.back
    assert not offload._calls, "nothing is left behind"


def test_the_next_is_on_its_way_when_one_is_taken():
    offload = Counting()
    weights = [torch.nn.Parameter(torch.ones(4)) for _ in range(3)]
    value = torch.ones(4, requires_grad=True)
    seen = []
    for weight in weights:
        value = offload(lambda value, weight=weight: (value * weight).exp(), value)
    weights[1].register_hook(lambda gradient: seen.append(len(offload.back)))
    value.sum().backward()
    assert seen == [3], "the first block's input was asked for before the second was done"


def test_weights_and_what_needs_no_gradient_stay():
    offload = Counting()
    weight = torch.nn.Parameter(torch.ones(4))
    context, value = torch.ones(4), torch.ones(4, requires_grad=True)
    offload(lambda value, context: value * weight + context, value, context).sum().backward()
    assert len(offload.sent) == 1
    assert torch.equal(offload.sent[0].host, value.detach())


def test_small_tensors_are_not_worth_a_copy():
    offload = Offload()
    value = torch.ones(4, requires_grad=True)
    offload(torch.exp, value).sum().backward()
    assert value.grad is not None
