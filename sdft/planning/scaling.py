"""What a step sends between GPUs, and how much of its speed is left with many of them.

In: what one GPU computes and holds, and the links. Out: a ScalingPlan: bytes and seconds a step,
and the efficiency, by number of GPUs. A small simulation: gradients become ready bucket by bucket
during the backward pass, and each bucket is sent as soon as the one before it is through.

What it leaves out: stragglers, other traffic, reading of images. So it is an upper limit.

P weights, G gradients, n GPUs, m machines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sdft.errors import UserError

Scheme = Literal["ddp", "fsdp2", "zero1", "zero2", "zero3"]
SCHEMES: tuple[Scheme, ...] = ("ddp", "fsdp2", "zero1", "zero2", "zero3")

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

BUCKET_BYTES = 25 << 20
"""Gradients that are sent together. Source: bucket_cap_mb of torch's DistributedDataParallel."""

GPUS_PER_MACHINE = 8

INSIDE_BYTES_PER_S = 370e9
"""That an all-reduce reaches over NVLink 4 in one machine, of 450 GB/s each way.
Source: all_reduce_perf of nccl-tests on H100 machines, as commonly published (360 to 480)."""

REACHED_SHARE = 0.85
"""Of a network link's nominal speed that collectives reach; the rest is headers and waiting."""

LATENCY_INSIDE_S = 5e-6
LATENCY_BETWEEN_S = 15e-6
"""Of one hop: some microseconds over NVLink, some more over a switch, with NCCL's own work."""

BACKWARD_SHARE = 2 / 3
"""Of a step's computation. The backward pass is twice the forward pass: one product for the
gradient of the input and one for that of the weights."""

_LINK = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(b|B)(?:it|yte)?(?:/s|ps)?\s*")
_SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True, slots=True, kw_only=True)
class OneGpu:
    """What a step is on one GPU."""

    compute_s: float
    """Forward and backward passes of its batch."""
    optimizer_s: float
    weight_bytes: int
    """Of trained weights as they are computed with."""
    gradient_bytes: int
    state_bytes: int
    """Of the optimizer, with float32 copies of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """How fast GPUs speak to each other."""

    between_bytes_per_s: float
    """Of one machine's network, nominal."""
    inside_bytes_per_s: float = INSIDE_BYTES_PER_S
    gpus_per_machine: int = GPUS_PER_MACHINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A step with some number of GPUs, each with the batch that one alone would have."""

    gpus: int
    sent_bytes: int
    """By each GPU in each step."""
    step_s: float
    waiting_s: float
    """Of the step, in which nothing is computed."""
    efficiency: float
    """Images a second of a GPU beside those of one alone."""
    held_bytes: int
    """Of weights, gradients and states, on each GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPlan:
    scheme: Scheme
    rows: tuple[Scaled, ...]


def link_bytes_per_s(text: str) -> float:
    """Read `400Gb` (bits) or `50GB/s` (bytes).

    Raises: UserError.
    """
    match = _LINK.fullmatch(text)
    speed = 0.0 if match is None else float(match[1]) * _SCALES[match[2]]
    if match is None or not speed:
        raise UserError(
            what=f'"{text}" is not the speed of a link',
            where="--link",
            fix="write it like 400Gb (bits a second) or 50GB (bytes)",
        )
    return speed / 8 if match[3] == "b" else speed


def sent_bytes(scheme: Scheme, *, weight_bytes: int, gradient_bytes: int, gpus: int) -> int:
    """Return what each GPU sends in a step, in the least that any algorithm needs.

    An all-reduce of S bytes is a reduce-scatter and an all-gather of (n-1)/n S each. ZeRO's stages
    1 and 2 do the first with gradients and the second with weights; stage 3 and FSDP2 gather
    weights in the forward and again in the backward pass.

    Source: Rajbhandari et al. 2020 (arXiv 1910.02054), section 7; Patarasuk and Yuan 2009.
    """
    share = (gpus - 1) / gpus
    gathers = {"ddp": 0, "zero1": 1, "zero2": 1, "zero3": 2, "fsdp2": 2}[scheme]
    scatters = 2 if scheme == "ddp" else 1
    return round(share * (scatters * gradient_bytes + gathers * weight_bytes))


def held_bytes(scheme: Scheme, one: OneGpu, gpus: int) -> int:
    """Return what each GPU holds of weights, gradients and states, without activations.

    Source: Rajbhandari et al. 2020, section 5.
    """
    weights, gradients, states = one.weight_bytes, one.gradient_bytes, one.state_bytes
    if scheme != "ddp":
        states = math.ceil(states / gpus)
    if scheme in ("zero2", "zero3", "fsdp2"):
        gradients = math.ceil(gradients / gpus)
    if scheme in ("zero3", "fsdp2"):
        weights = math.ceil(weights / gpus)
    return weights + gradients + states


def plan_scaling(
    one: OneGpu, links: Links, scheme: Scheme = "ddp", counts: Sequence[int] = COUNTS
) -> ScalingPlan:
    """Return a row for each number of GPUs."""
    alone_s = one.compute_s + one.optimizer_s
    rows = []
    for gpus in counts:
        step_s = _step_s(one, links, scheme, gpus)
        rows.append(
            Scaled(
                gpus=gpus,
                sent_bytes=sent_bytes(
                    scheme,
                    weight_bytes=one.weight_bytes,
                    gradient_bytes=one.gradient_bytes,
                    gpus=gpus,
                ),
                step_s=step_s,
                waiting_s=max(0.0, step_s - one.compute_s - _optimizer_s(one, scheme, gpus)),
                efficiency=alone_s / step_s,
                held_bytes=held_bytes(scheme, one, gpus),
            )
        )
    return ScalingPlan(scheme=scheme, rows=tuple(rows))


def _optimizer_s(one: OneGpu, scheme: Scheme, gpus: int) -> float:
    """Return how long the weights' update takes: each GPU its share, but all under DDP."""
    return one.optimizer_s / (1 if scheme == "ddp" else gpus)


def _step_s(one: OneGpu, links: Links, scheme: Scheme, gpus: int) -> float:
    """Go through one step, bucket by bucket."""
    optimizer_s = _optimizer_s(one, scheme, gpus)
    if gpus == 1:
        return one.compute_s + optimizer_s
    num_buckets = max(1, math.ceil(one.gradient_bytes / BUCKET_BYTES))
    rounds = 2 if scheme == "ddp" else 1
    gradient_s = _collective_s(one.gradient_bytes / num_buckets, rounds, links, gpus)
    weight_s = _collective_s(one.weight_bytes / num_buckets, 1, links, gpus)
    part = _Parts(number=num_buckets)
    if scheme in ("fsdp2", "zero3"):
        part.run(one.compute_s * (1 - BACKWARD_SHARE), before_s=weight_s, after_s=0)
        part.run(one.compute_s * BACKWARD_SHARE, before_s=weight_s, after_s=gradient_s)
    else:
        part.run(one.compute_s * (1 - BACKWARD_SHARE), before_s=0, after_s=0)
        part.run(one.compute_s * BACKWARD_SHARE, before_s=0, after_s=gradient_s)
    step_s = max(part.computed_s, part.link_free_s) + optimizer_s
    if scheme in ("zero1", "zero2"):
        # Only stepped weights can be gathered, so nothing hides it.
        step_s += weight_s * num_buckets
    return step_s


@dataclass(slots=True)
class _Parts:
    """A GPU and its link, which work side by side on the parts of a network one after another."""

    number: int
    computed_s: float = 0.0
    """When what was computed last is done."""
    link_free_s: float = 0.0

    def run(self, compute_s: float, *, before_s: float, after_s: float) -> None:
        """Compute all parts; each needs `before_s` of the link before and `after_s` after it.

        What a part needs is sent while the part before it is computed.
        """
        ready_s = 0.0
        if before_s:
            self.link_free_s = ready_s = max(self.link_free_s, self.computed_s) + before_s
        for number in range(self.number):
            begun_s = max(self.computed_s, ready_s) if before_s else self.computed_s
            if before_s and number + 1 < self.number:
                self.link_free_s = ready_s = max(self.link_free_s, begun_s) + before_s
            self.computed_s = begun_s + compute_s / self.number
            if after_s:
                self.link_free_s = max(self.link_free_s, self.computed_s) + after_s


def _collective_s(num_bytes: float, rounds: int, links: Links, gpus: int) -> float:
    """Return how long a reduce-scatter or all-gather (1 round), or an all-reduce (2), takes.

    Rings over all GPUs; a machine's network carries what leaves it, which is as much as one GPU
    sends, however many are in the machine. Latency grows with the machines' logarithm, since NCCL
    goes over to trees.
    """
    machines = math.ceil(gpus / links.gpus_per_machine)
    inside = min(gpus, links.gpus_per_machine)
    sent = rounds * num_bytes * (gpus - 1) / gpus
    time_s = sent / links.inside_bytes_per_s if inside > 1 else 0.0
    hops_s = (inside - 1) * LATENCY_INSIDE_S
    if machines > 1:
        time_s = max(time_s, sent / (links.between_bytes_per_s * REACHED_SHARE))
        hops_s += math.ceil(math.log2(machines)) * LATENCY_BETWEEN_S
    return time_s + rounds * hops_s
