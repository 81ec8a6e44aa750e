from __future__ import annotations

import math

import pytest

from sdft.events import (
    CheckpointSaved,
    Event,
    ItemRejected,
    Notice,
    RunFinished,
    RunStarted,
    RunStopped,
    StageFinished,
    StageProgress,
    StageStarted,
    StepDone,
)
from sdft.views.summary import NUM_KEPT, Smoothed, Summary, reduce


def after(*events: Event, every_s: float = 1.0) -> Summary:
    """The summary of events that come at an even pace."""
    summary = Summary()
    for number, event in enumerate(events):
        summary = reduce(summary, number * every_s, event)
    return summary


def started(**changes: object) -> RunStarted:
    facts = {
        "name": "cats",
        "steps": 100,
        "epochs": 10,
        "first_step": 1,
        "images": 40,
        "effective_batch": 4,
        "device": "cpu",
        "model": "base.safetensors",
        "command": "sdft train",
        "version": "0",
    }
    return RunStarted(**(facts | changes))


def step(number: int, *, loss: float = 0.5, items: int = 4, duration_s: float = 2.0) -> StepDone:
    return StepDone(
        step=number,
        epoch=1,
        loss=loss,
        lr=1e-5,
        bucket=(512, 512),
        grad_norm=1.0,
        items=items,
        duration_s=duration_s,
    )


def test_a_summary_of_nothing_has_no_numbers():
    summary = Summary()
    assert summary.step == 0
    assert summary.left_s is None
    assert summary.images_per_s is None
    assert summary.stage is None


def test_speed_and_time_left_come_from_the_durations_of_steps_not_from_the_clock():
    events = [started(), *(step(number) for number in range(1, 11))]
    for pace_s in (0.001, 1.0, -5.0):
        summary = after(*events, every_s=pace_s)
        assert summary.images_per_s == pytest.approx(2.0)
        assert summary.left_s == pytest.approx(90 * 2.0)


def test_time_left_follows_a_change_of_speed():
    slow = [step(number, duration_s=10.0) for number in range(1, 11)]
    fast = [step(number, duration_s=1.0) for number in range(11, 51)]
    assert after(started(), *slow, *fast).left_s == pytest.approx(50 * 1.0, rel=0.2)


def test_the_first_loss_is_the_smoothed_loss_and_later_ones_move_it():
    assert after(step(1, loss=0.8)).loss.mean == pytest.approx(0.8)
    flat = after(*(step(number, loss=0.3) for number in range(1, 200)))
    assert flat.loss.mean == pytest.approx(0.3)
    moved = after(step(1, loss=1.0), *(step(number, loss=0.0) for number in range(2, 400)))
    assert 0 < moved.loss.mean < 0.01


def test_a_loss_that_is_not_finite_is_shown_as_it_is():
    assert math.isnan(after(step(1, loss=math.nan)).loss.mean)


def test_a_continued_run_stands_where_it_was_left_and_is_timed_anew():
    first = [started(), step(1, duration_s=60.0)]
    summary = after(*first, started(first_step=41))
    assert summary.step == 40
    assert summary.left_s is None
    assert after(*first, started(first_step=41), step(41)).left_s == pytest.approx(59 * 2.0)


def test_a_stage_knows_its_rate_and_the_time_that_is_left():
    summary = after(
        StageStarted(stage="latents", total=100, unit="images"),
        StageProgress(stage="latents", done=20),
        every_s=10.0,
    )
    assert summary.stage.done == 20
    assert summary.stage.rate_per_s == pytest.approx(2.0)
    assert summary.stage.left_s == pytest.approx(40.0)


def test_a_finished_stage_is_no_longer_at_work():
    summary = after(
        StageStarted(stage="index", total=0, unit="images"),
        StageStarted(stage="headers", total=3, unit="files"),
        StageFinished(stage="headers", done=3, duration_s=1.5),
    )
    assert summary.stage.name == "index"
    assert summary.stages[-1].rate_per_s == pytest.approx(2.0)
    assert summary.stages[-1].left_s is None


def test_progress_of_a_stage_that_never_began_changes_nothing():
    assert after(StageProgress(stage="ghost", done=3)) == Summary()


def test_notices_and_rejections_are_counted_in_full_and_kept_in_part():
    notices = [Notice(severity="warning", topic="x", message=str(n)) for n in range(NUM_KEPT * 2)]
    rejected = [ItemRejected(path=f"{n}.png", reason="truncated") for n in range(NUM_KEPT * 2)]
    summary = after(*notices, *rejected, ItemRejected(path="a.png", reason="too small"))
    assert summary.num_notices == {"warning": NUM_KEPT * 2}
    assert summary.notices == tuple(notices[-NUM_KEPT:])
    assert summary.num_rejected == NUM_KEPT * 2 + 1
    assert summary.num_rejected_by_reason == {"truncated": NUM_KEPT * 2, "too small": 1}
    assert len(summary.rejected) == NUM_KEPT


def test_the_end_of_a_run_is_known_until_it_goes_on():
    stopped = RunStopped(step=3, reason="interrupted", resumable=True, fix="")
    assert after(started(), stopped).end == stopped
    assert after(started(), stopped, started(first_step=4)).end is None
    finished = RunFinished(steps=3, epochs=1, loss=0.1, checkpoint="x", duration_s=9.0)
    assert after(finished).end == finished


def test_the_latest_checkpoint_is_kept():
    saved = [
        CheckpointSaved(step=n, epoch=1, path=f"{n}", size_bytes=1, duration_s=0.1) for n in (1, 2)
    ]
    assert after(*saved).checkpoint == saved[1]


def test_reducing_leaves_the_earlier_summary_as_it_was():
    before = after(started(), step(1))
    reduce(before, 5.0, ItemRejected(path="a", reason="b"))
    assert before.num_rejected == 0
    assert before.num_rejected_by_reason == {}


def test_smoothing_with_no_memory_is_the_last_value():
    assert Smoothed().add(1.0, 0.0).add(5.0, 0.0).mean == 5.0
