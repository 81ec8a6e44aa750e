"""Figures that are no numbers, spikes, a lack of memory: each is named."""

import math

import pytest
import torch

from sdft.errors import EnvironmentFault
from sdft.events import Notice
from sdft.train.guard import cause_of, first_bad_weight, is_spike, names, remembered
from sdft.train.out_of_memory import is_out_of_memory, memory_fault, smaller
from sdft.train.sampler import Step, Use
from sdft.train.spill import SpillWatch, looks_spilled
from sdft.train.step import StepOutcome

USES = (Use(0, 0), Use(1, 0), Use(2, 0))
STEP = Step(dataset=0, bucket=(64, 64), uses=USES, effective_batch=3)
FINE = torch.tensor([True, True, True])


def name_of(use):
    return "abc"[use.placement]


def cause(*, loss=math.nan, grad_norm=None, weight="", applied=False, **flags):
    outcome = StepOutcome(
        loss=torch.tensor(loss),
        grad_norm=None,
        applied=applied,
        losses_finite=flags.get("losses", FINE),
        contexts_finite=flags.get("contexts", FINE),
    )
    return cause_of(
        STEP, outcome, loss=loss, grad_norm=grad_norm, name_of=name_of, bad_weight=lambda: weight
    )


def test_the_items_whose_loss_is_no_number_are_named():
    assert cause(losses=torch.tensor([True, False, True])) == "the loss is no number for b"


def test_the_text_encoder_is_named_before_what_follows_from_it():
    bad = torch.tensor([True, True, False])
    said = cause(contexts=bad, losses=bad)
    assert said == "the text encoder's output is no number for c"


def test_a_gradient_is_named_where_the_loss_is_fine():
    said = cause(loss=0.5, grad_norm=math.inf)
    assert said == "the gradient is no number, while the loss is; images: a, b, c"


def test_a_broken_weight_is_the_cause_only_if_this_step_did_not_break_it():
    assert "because the weight unet.conv is none" in cause(weight="unet.conv")
    assert "unet.conv" not in cause(weight="unet.conv", applied=True)


def test_the_first_weight_that_is_no_number_is_found():
    module = torch.nn.Linear(2, 2)
    assert first_bad_weight({"unet": module}) == ""
    with torch.no_grad():
        module.bias[1] = math.inf
    assert first_bad_weight({"unet": module}) == "unet.bias"


def test_many_items_are_counted_and_each_is_named_once():
    uses = [Use(number % 7, 0) for number in range(14)]
    assert names(uses, lambda use: f"i{use.placement}") == "i0, i1, i2, i3, i4 and 2 more"


def test_a_spike_is_a_loss_far_above_the_median_of_many():
    recent = ()
    for number in range(200):
        recent = remembered(recent, 0.1 + 0.01 * (number % 5))
    assert len(recent) == 64
    assert is_spike(1.0, recent)
    assert not is_spike(0.5, recent)
    assert not is_spike(100.0, recent[:10])


def test_halves_are_rounded_up_and_one_image_cannot_be_halved():
    assert smaller((5, 4), 0) == (3, 4)
    assert smaller((5, 4), 1) == (5, 2)
    assert smaller((1, 4), 0) is None


def test_a_lack_of_memory_is_told_from_other_errors():
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_the_error_says_what_would_free_how_much():
    weight = torch.nn.Parameter(torch.zeros(1_000_000))
    moments = {"state": {0: {"a": torch.zeros(1_000_000), "b": torch.zeros(1_000_000)}}}
    fault = memory_fault(
        where="bucket 64x64",
        parameters=[weight],
        optimizer_state=moments,
        micro_batch=4,
        device=torch.device("cpu"),
    )
    assert isinstance(fault, EnvironmentFault)
    assert "weights take 4 MB" in str(fault)
    assert "AdamW8bit frees 6 MB" in str(fault)
    assert "gradient_accumulation_steps" in str(fault)


@pytest.mark.parametrize(
    ("figures", "spilled"),
    [
        ({"reserved_bytes": 11, "free_bytes": 5}, True),
        ({"reserved_bytes": 9, "free_bytes": 0, "duration_s": 4.0}, True),
        ({"reserved_bytes": 9, "free_bytes": 0, "duration_s": 1.5}, False),
        ({"reserved_bytes": 9, "free_bytes": 3, "duration_s": 40.0}, False),
        # Before anything is known of the usual duration.
        ({"reserved_bytes": 9, "free_bytes": 0, "duration_s": 40.0, "usual_s": 0.0}, False),
    ],
)
def test_a_spill_is_more_held_than_there_is_or_full_and_slow(figures, spilled):
    all_figures = {"total_bytes": 10, "duration_s": 1.0, "usual_s": 1.0} | figures
    assert looks_spilled(**all_figures) == spilled


def test_the_spill_watch_looks_at_gpus_only_and_speaks_once(monkeypatch):
    events = []
    SpillWatch(torch.device("cpu"), events.append).after_step(1.0)
    assert events == []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 120)
    watch = SpillWatch(torch.device("cuda"), events.append)
    watch.after_step(1.0)
    watch.after_step(1.0)
    (notice,) = events
    assert isinstance(notice, Notice)
    assert notice.topic == "spill"
