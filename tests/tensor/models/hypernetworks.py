"""Makes hypernetworks for tests.

In: widths of attention layers and the fields of a file. Out: a network with strong weights, the
table that the web UI would save of it, or a file of ours.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from sdft.export.hypernetwork import write_hypernetwork
from sdft.models.checkpoint import MemoryTensors
from sdft.models.hypernetwork import new_hypernetwork
from sdft.models.hypernetwork_file import HypernetworkFields

NOVEL_AI = HypernetworkFields()
"""What a file without fields has."""

DEEP = HypernetworkFields(
    layer_structure=(1.0, 1.5, 2.0, 1.0),
    activation_func="relu",
    is_layer_norm=True,
    use_dropout=True,
    activate_output=True,
    step=7,
    name="deep",
)
"""Everything that a structure may have."""


def strong(widths, fields=NOVEL_AI, *, multiplier=1.0, seed=3):
    """Return a hypernetwork whose weights are large enough to see what it does."""
    network = new_hypernetwork(
        widths, fields.structure, initialization="XavierNormal", multiplier=multiplier, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight, std=0.1, generator=generator)
    return network.eval().requires_grad_(False)


def web_ui_table(network, **fields):
    """Return what the web UI's own save gives to torch.save."""
    table = {
        width: tuple(OrderedDict(module.state_dict()) for module in network.pair(width))
        for width in network.widths
    }
    return table | fields


def write(path, network, fields, form, **more):
    """Write a file as a run does, and return its path."""
    tensors = MemoryTensors(network.state_dict()).all_lazy()
    options = {"save_precision": None, "metadata": {"modelspec.title": "t"}} | more
    write_hypernetwork(path, tensors, fields, form=form, **options)
    return path
