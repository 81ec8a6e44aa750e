"""What breaks within a step is named: figures that are no numbers, and a lack of memory."""

from __future__ import annotations

import torch

from sdft.errors import DataError, EnvironmentFault, StoppedResumable
from sdft.events import RunStopped, SettingChosen
from sdft.train.step import Objective
from tests.toy.toy_runs import CONSTANT, assert_same_weights, messages, stop_after


def broken_loss(monkeypatch, is_bad):
    """Let the loss of some forward passes, counted from 1, be no number."""
    real = Objective.losses
    count = 0

    def losses(self, unet, batch, contexts):
        nonlocal count
        count += 1
        found = real(self, unet, batch, contexts)
        if not is_bad(count):
            return found
        bad = torch.zeros_like(found)
        bad[0] = float("nan")
        return found + bad

    monkeypatch.setattr(Objective, "losses", losses)


def test_a_loss_that_is_no_number_stops_the_run_with_the_image_and_a_way_on(
    toy, monkeypatch, tmp_path
):
    names = {one.stem for one in toy("before", max_train_steps=1).result.run.parent.glob("*")}
    with monkeypatch.context() as patch:
        broken_loss(patch, lambda count: count == 3)
        run = toy(max_train_steps=4, rolling_state_steps=1)
    assert names
    assert isinstance(run.error, DataError)
    assert "step 3 cannot be used: the loss is no number for " in str(run.error)
    named = str(run.error).partition("number for ")[2].split("\n")[0]
    assert list((tmp_path / "images").glob(f"{named}*"))
    (stopped,) = run.of(RunStopped)
    assert (stopped.step, stopped.resumable) == (3, True)
    assert "--resume auto" in stopped.fix
    # The weights were not touched, so the run that goes on is the run.
    whole = toy("whole", max_train_steps=4)
    rest = toy(max_train_steps=4, rolling_state_steps=1, resume="auto")
    assert sorted(rest.losses) == [3, 4]
    assert_same_weights(whole.result.checkpoint, rest.result.checkpoint)


def test_bad_steps_are_left_out_and_many_in_a_row_go_back_to_the_last_good_state(toy, monkeypatch):
    broken_loss(monkeypatch, lambda count: count in (2, 5, 6))
    run = toy(
        max_train_steps=8,
        on_bad_step="skip",
        max_bad_steps=2,
        rolling_state_steps=3,
        **CONSTANT,
    )
    assert run.error is None, run.error
    assert sorted(run.losses) == [1, 3, 4, 7, 8]
    assert len(messages(run, "bad step")) == 3
    (back,) = messages(run, "rollback")
    assert "the weights are those of step 3 again" in back
    assert "the data goes on after step 6" in back


def test_without_an_earlier_state_bad_steps_in_a_row_end_the_run(toy, monkeypatch):
    broken_loss(monkeypatch, lambda count: True)
    run = toy(max_train_steps=8, on_bad_step="skip", max_bad_steps=2)
    assert isinstance(run.error, DataError)
    assert "2 steps in a row could not be used, and there is no earlier state" in str(run.error)


def test_out_of_memory_is_met_by_smaller_parts_that_the_state_remembers(toy, monkeypatch):
    real = Objective.losses

    def losses(self, unet, batch, contexts):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no room")
        return real(self, unet, batch, contexts)

    whole = toy("whole", max_train_steps=4, **CONSTANT)
    monkeypatch.setattr(Objective, "losses", losses)
    cut = toy("cut", max_train_steps=4, listen=stop_after(2), **CONSTANT)
    assert isinstance(cut.error, StoppedResumable)
    (chosen,) = [one for one in cut.of(SettingChosen) if one.name == "images a forward pass"]
    assert chosen.value == [2]
    rest = toy("cut", max_train_steps=4, resume="auto", **CONSTANT)
    assert rest.error is None
    assert not [one for one in rest.of(SettingChosen) if one.name == chosen.name]
    found = cut.losses | rest.losses
    assert found.keys() == whole.losses.keys()
    assert all(abs(found[step] - whole.losses[step]) < 1e-4 for step in found)


def test_out_of_memory_twice_in_one_step_says_what_would_help(toy, monkeypatch):
    def losses(self, unet, batch, contexts):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Objective, "losses", losses)
    run = toy(max_train_steps=2)
    assert isinstance(run.error, EnvironmentFault)
    assert "no room on cpu: weights take" in str(run.error)
    assert "gradient_accumulation_steps" in str(run.error)


def test_a_backward_pass_that_changes_weights_is_not_cut_into_parts(toy, monkeypatch):
    real = Objective.losses

    def losses(self, unet, batch, contexts):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no room")
        return real(self, unet, batch, contexts)

    monkeypatch.setattr(Objective, "losses", losses)
    run = toy(max_train_steps=4, fused_backward_pass=True, **CONSTANT)
    assert isinstance(run.error, EnvironmentFault)
    assert "their gradients as much" not in str(run.error)
    assert "a smaller train_batch_size" in str(run.error)
    assert "gradient_accumulation_steps" not in str(run.error)


def test_a_bad_step_of_a_fused_backward_pass_ends_the_run_and_no_state_holds_it(toy, monkeypatch):
    settings = {"fused_backward_pass": True, "rolling_state_steps": 1, **CONSTANT}
    with monkeypatch.context() as patch:
        broken_loss(patch, lambda count: count == 3)
        run = toy(max_train_steps=4, **settings)
    assert isinstance(run.error, DataError)
    assert "step 3 cannot be used: the loss is no number for " in str(run.error)
    (stopped,) = run.of(RunStopped)
    assert (stopped.step, stopped.resumable) == (3, True)
    whole = toy("whole", max_train_steps=4, **settings)
    rest = toy(max_train_steps=4, resume="auto", **settings)
    assert sorted(rest.losses) == [3, 4]
    assert_same_weights(whole.result.checkpoint, rest.result.checkpoint)
