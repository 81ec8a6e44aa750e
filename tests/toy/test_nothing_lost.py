"""A resumed run is the run, whatever it trains with; what breaks is named, and nothing is lost."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch

from sdft.control import send_command
from sdft.errors import EnvironmentFault, Interrupted, StoppedResumable, UserError
from sdft.events import (
    CheckpointSaved,
    ControlAnswered,
    RunStopped,
    StateSaved,
    StepDone,
)
from sdft.jobs.training.keeping import Keeper
from sdft.jobs.verify import run_verify
from sdft.rundir import RunDir
from sdft.train.state import finished_states, read_state
from tests.toy.toy_runs import CONSTANT, assert_same_weights, messages, stop_after


@pytest.mark.parametrize(
    ("settings", "stop"),
    [
        ({"ema": True, "ema_decay": 0.9, "lr_scheduler": "cosine"}, 2),
        (
            {"optimizer_type": "AdamWScheduleFree", **CONSTANT, "save_every_n_steps": 1},
            2,
        ),
        ({"optimizer_type": "DAdaptAdam", "learning_rate": 1.0, **CONSTANT}, 2),
        ({"optimizer_type": "Prodigy", "learning_rate": 1.0, **CONSTANT}, 2),
        ({"mixed_precision": "bf16", "full_bf16": True, "save_precision": "float"}, 2),
        pytest.param(
            {
                "fused_backward_pass": True,
                "optimizer_states_on_cpu": True,
                "optimizer_type": "AdamW8bit",
                "mixed_precision": "bf16",
                "full_bf16": True,
                "gradient_checkpointing": True,
                "train_text_encoder": True,
                "max_token_length": 150,
                "clip_skip": 2,
                "ema": True,
            },
            1,
            # bfloat16 is slow on a CPU; the same in small: tests/tensor/train/test_chunks.py.
            marks=pytest.mark.long,
        ),
        # At the border of two epochs, with words that are drawn anew on each use.
        ({"shuffle_caption": True, "caption_dropout_rate": 0.3, "flip_aug": True}, 5),
    ],
    ids=[
        "ema",
        "schedule-free",
        "d-adaptation",
        "prodigy",
        "bf16 with rounding",
        "low memory",
        "border",
    ],
)
def test_a_resumed_run_is_exact(toy, settings, stop):
    steps = stop + 2
    whole = toy("whole", max_train_steps=steps, **settings)
    assert whole.error is None, whole.error
    first = toy("halved", max_train_steps=steps, listen=stop_after(stop), **settings)
    assert isinstance(first.error, StoppedResumable)
    rest = toy("halved", max_train_steps=steps, resume="auto", **settings)
    assert rest.error is None, rest.error
    assert first.losses | rest.losses == whole.losses
    assert sorted(rest.losses) == [stop + 1, stop + 2]
    assert_same_weights(whole.result.checkpoint, rest.result.checkpoint)


def test_workers_of_any_number_give_the_same_run(toy):
    # Latents are made on each use, so that workers read pictures.
    live = {"max_train_steps": 4, "cache_latents": False}
    whole = toy("whole", max_data_loader_n_workers=0, **live)
    first = toy("halved", max_data_loader_n_workers=4, listen=stop_after(2), **live)
    assert isinstance(first.error, StoppedResumable)
    rest = toy("halved", max_data_loader_n_workers=0, resume="auto", **live)
    assert rest.error is None, rest.error
    assert first.losses | rest.losses == whole.losses
    assert_same_weights(whole.result.checkpoint, rest.result.checkpoint)


def test_what_differs_is_shown_and_can_be_allowed(toy, tmp_path):
    toy(max_train_steps=2, save_state_on_train_end=True, **CONSTANT)
    refused = toy(max_train_steps=3, learning_rate=1e-5, resume="auto", **CONSTANT)
    assert isinstance(refused.error, UserError)
    assert "learning_rate: 0.002, now 1e-05" in str(refused.error)
    assert "--allow-changed learning_rate" in str(refused.error)

    caption = next((tmp_path / "images").glob("002*.txt"))
    caption.write_text("quite another picture", "utf-8")
    edited = toy(max_train_steps=3, resume="auto", **CONSTANT)
    assert f"other words: {caption.stem}" in str(edited.error)
    image = next(one for one in (tmp_path / "images").glob("003*") if one.suffix != ".txt")
    image.unlink()
    image.with_suffix(".txt").unlink()
    removed = toy(max_train_steps=3, resume="auto", **CONSTANT)
    assert f"removed: {image.stem}" in str(removed.error)

    allowed = toy(
        max_train_steps=3,
        learning_rate=1e-5,
        allow_changed=["learning_rate", "dataset"],
        resume="auto",
        **CONSTANT,
    )
    assert allowed.error is None
    assert [one.lr for one in allowed.of(StepDone)] == [1e-5]
    assert len([one for one in messages(allowed, "resume") if "allowed" in one]) == 2


def test_a_run_that_begins_at_a_step_has_the_data_and_rates_of_that_step(toy):
    whole = toy("whole", max_train_steps=7)
    later = toy("later", max_train_steps=7, initial_step=3, skip_until_initial_step=True)
    assert later.error is None
    by_step = {one.step: (one.epoch, one.bucket, one.lr, one.items) for one in whole.of(StepDone)}
    begun = {one.step: (one.epoch, one.bucket, one.lr, one.items) for one in later.of(StepDone)}
    assert begun == {step: by_step[step] for step in (4, 5, 6, 7)}
    # Without it, or by epoch, the run begins with the epoch.
    by_epoch = toy("epoch", max_train_steps=7, initial_epoch=2)
    assert sorted(by_epoch.losses) == [6, 7]
    at_start = toy("start", max_train_steps=7, initial_step=6)
    assert at_start.losses == by_epoch.losses
    beyond = toy("beyond", max_train_steps=7, initial_step=7, skip_until_initial_step=True)
    assert isinstance(beyond.error, UserError)
    assert "would begin after step 7" in str(beyond.error)


def test_the_disk_fills_while_a_state_is_written_and_the_one_before_it_stays(
    toy, monkeypatch, tmp_path
):
    import sdft.train.state_write as module

    real, written = module._Hashed.write, 0

    def write(self, block):
        nonlocal written
        written += len(block)
        # The second state of three meets a full disk.
        if 60_000_000 > written > 50_000_000:
            raise OSError(28, "No space left on device")
        return real(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(module._Hashed, "write", write)
        run = toy(max_train_steps=6, rolling_state_steps=2, **CONSTANT)
    assert isinstance(run.error, EnvironmentFault)
    assert "No space left" in str(run.error)
    states = finished_states(tmp_path / "out" / "toy.run" / "states")
    assert [one.name for one in states] == ["step00000002"]
    assert not list((tmp_path / "out").rglob("*.part-*"))
    rest = toy(max_train_steps=6, rolling_state_steps=2, resume="auto", **CONSTANT)
    assert sorted(rest.losses) == [3, 4, 5, 6]
    whole = toy("whole", max_train_steps=6, **CONSTANT)
    assert_same_weights(whole.result.checkpoint, rest.result.checkpoint)


def test_a_state_with_a_flipped_byte_is_passed_over_by_resume_and_named_by_verify(toy, tmp_path):
    run = toy(
        max_train_steps=4, save_every_n_steps=1, save_state=True, listen=stop_after(3), **CONSTANT
    )
    assert isinstance(run.error, StoppedResumable)
    folder = tmp_path / "out" / "toy.run"
    whole = run_verify(folder, emit=lambda _: None)
    assert whole.problems == ()
    assert [one.step for one in whole.states] == [1, 2, 3]
    assert whole.resume_step == 3
    assert set(whole.checkpoints) == {f"toy-step0000000{step}.safetensors" for step in (1, 2, 3)}

    victim = folder / "states" / "step00000003" / "unet.safetensors"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    found = run_verify(folder, emit=lambda _: None)
    assert "unet.safetensors has been altered" in str(found.problems[0])
    assert found.resume_step == 2
    assert run_verify(victim.parent, emit=lambda _: None).problems

    rest = toy(max_train_steps=4, save_every_n_steps=1, save_state=True, resume="auto", **CONSTANT)
    assert sorted(rest.losses) == [3, 4]
    passed = [one for one in messages(rest, "resume") if "passed over" in one]
    assert "step00000003" in passed[0]
    # What was asked for once is kept, also by the run that goes on.
    names = [one.name for one in finished_states(folder / "states")]
    assert names == [f"step0000000{step}" for step in (1, 2, 3, 4)]


def test_a_rolling_state_leaves_those_that_were_asked_for_and_goes_at_the_end(toy, tmp_path):
    settings = {"save_every_n_steps": 3, "save_state": True, "rolling_state_steps": 2, **CONSTANT}
    first = toy(max_train_steps=8, listen=stop_after(5), **settings)
    assert isinstance(first.error, StoppedResumable)
    states = tmp_path / "out" / "toy.run" / "states"
    assert [one.name for one in finished_states(states)] == ["step00000003", "step00000005"]
    rest = toy(max_train_steps=8, resume="auto", **settings)
    assert rest.error is None
    names = [one.name for one in finished_states(states)]
    assert names == ["step00000003", "step00000006", "step00000008"]


def test_going_back_to_an_earlier_state_sets_the_later_ones_aside(toy, tmp_path):
    settings = {"save_every_n_steps": 1, "save_state": True, **CONSTANT}
    toy(max_train_steps=4, **settings)
    states = tmp_path / "out" / "toy.run" / "states"
    back = toy(
        max_train_steps=4,
        learning_rate=1e-4,
        allow_changed=["learning_rate"],
        resume=str(states / "step00000002"),
        **settings,
    )
    assert back.error is None
    assert sorted(back.losses) == [3, 4]
    names = sorted(one.name for one in states.iterdir())
    numbers = ("1", "2", "3", "3-1", "4", "4-1")
    assert names == [f"step0000000{number}" for number in numbers]
    assert read_state(states / "step00000003").settings["learning_rate"] == 1e-4
    assert read_state(states / "step00000003-1").settings["learning_rate"] == 0.002


def test_a_missing_and_a_broken_shard_of_the_cache_are_made_again_to_the_bit(toy, tmp_path):
    own = {"cache_dir": str(tmp_path / "cache"), "max_train_steps": 4, **CONSTANT}
    whole = toy("whole", **own)
    for harm in ("missing", "broken"):
        name = f"halved-{harm}"
        toy(name, listen=stop_after(2), **own)
        shards = sorted((tmp_path / "cache" / "latents").rglob("*.safetensors"))
        assert shards
        for shard in shards:
            content = bytearray(shard.read_bytes())
            content[-10] ^= 1
            shard.unlink()
            if harm == "broken":
                shard.write_bytes(content)
        rest = toy(name, resume="auto", **own)
        assert rest.error is None, rest.error
        assert_same_weights(whole.result.checkpoint, rest.result.checkpoint)


def test_no_rolling_state_is_kept_where_that_is_asked(toy, tmp_path):
    settings = {"no_rolling_state": True, "rolling_state_steps": 1, **CONSTANT}
    run = toy(max_train_steps=3, **settings)
    assert run.error is None
    assert run.of(StateSaved) == []


def test_resume_of_a_finished_run_without_a_state_writes_over_nothing(toy):
    first = toy(max_train_steps=2, **CONSTANT)
    before = first.result.checkpoint.read_bytes()
    again = toy(max_train_steps=4, resume="auto", **CONSTANT)
    assert isinstance(again.error, UserError)
    assert "left no state" in str(again.error)
    assert first.result.checkpoint.read_bytes() == before


def test_the_state_tells_threads_versions_and_settings(toy, tmp_path):
    toy(max_train_steps=1, save_state_on_train_end=True)
    state = read_state(tmp_path / "out" / "toy.run" / "states" / "step00000001")
    assert state.machine["threads"] == "1"
    assert state.machine["torch"] == str(torch.__version__)
    assert state.settings["learning_rate"] == 0.002


def test_a_run_is_steered_from_outside(toy, tmp_path):
    run_dir = RunDir(tmp_path / "out" / "toy.run")

    def listen(event):
        if not isinstance(event, StepDone):
            return
        if event.step == 1:
            send_command(run_dir, "set", {"learning_rate": 1e-4}, sender="test")
            time.sleep(0.25)
        elif event.step == 2:
            send_command(run_dir, "save", sender="test")
            time.sleep(0.25)
        elif event.step == 3:
            send_command(run_dir, "sample", sender="test")
            send_command(run_dir, "stop", sender="test")
            time.sleep(0.25)

    run = toy(max_train_steps=6, listen=listen, **CONSTANT)
    answers = {one.command: one for one in run.of(ControlAnswered)}
    assert {name: one.ok for name, one in answers.items()} == {
        "set": True,
        "save": True,
        "sample": False,
        "stop": True,
    }
    rates = {one.step: one.lr for one in run.of(StepDone)}
    assert rates[1] == 0.002
    assert rates[3] == pytest.approx(1e-4)
    assert isinstance(run.error, StoppedResumable)
    (stopped,) = run.of(RunStopped)
    assert stopped.reason == "asked"
    assert len(run.of(CheckpointSaved)) == 1
    # The rate that was set is a part of the state.
    rest = toy(max_train_steps=max(rates) + 1, resume="auto", **CONSTANT)
    assert [one.lr for one in rest.of(StepDone)] == [pytest.approx(1e-4)]


def test_training_goes_on_while_a_state_is_written(toy, monkeypatch):
    real = Keeper._state
    next_step_is_done = threading.Event()
    in_time = []

    def slow(self, progress, *, kept, said):
        def write_after_the_next_step(content, job):
            in_time.append(next_step_is_done.wait(60))
            job.write(content)

        return [
            replace(job, write=lambda content, job=job: write_after_the_next_step(content, job))
            for job in real(self, progress, kept=kept, said=said)
        ]

    def listen(event):
        if isinstance(event, StepDone) and event.step == 4:
            next_step_is_done.set()

    monkeypatch.setattr(Keeper, "_state", slow)
    run = toy(max_train_steps=4, rolling_state_steps=3, listen=listen, **CONSTANT)
    assert run.error is None
    assert in_time == [True]


def test_the_second_interrupt_ends_at_once_and_the_last_state_stays(toy, tmp_path):
    def listen(event):
        if isinstance(event, StepDone) and event.step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    run = toy(max_train_steps=6, rolling_state_steps=2, listen=listen, **CONSTANT)
    assert isinstance(run.error, KeyboardInterrupt)
    assert not isinstance(run.error, Interrupted)
    events = (tmp_path / "out" / "toy.run" / "events.jsonl").read_text("ascii").splitlines()
    assert json.loads(events[-1])["resumable"] is True
    rest = toy(max_train_steps=6, rolling_state_steps=2, resume="auto", **CONSTANT)
    assert sorted(rest.losses)[-1] == 6
