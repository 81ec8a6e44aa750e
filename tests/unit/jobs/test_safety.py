"""What a run needs of the disk, what differs on resume, sleep, orders in any order."""

import gzip
import os
import shutil
import sys

import pytest

from sdft.errors import EnvironmentFault, UserError
from sdft.events import Notice, ignore
from sdft.jobs.training.awake import helper_line, kept_awake
from sdft.jobs.training.disk_needs import DiskNeeds, held_bytes, require_disk
from sdft.jobs.training.resuming import RunFacts, changed, require_same
from sdft.train.checkpoint import SaveRules
from sdft.train.state import Identity, Progress, SavedState


def needs(**changes):
    values = {
        "first_step": 0,
        "total_steps": 100,
        "num_epochs": 4,
        "steps_through": lambda epochs: 25 * epochs,
        "checkpoints": SaveRules(),
        "checkpoint_bytes": 10,
        "state_rules": SaveRules(),
        "state_bytes": 50,
        "keeps_rolling_state": False,
        "state_at_end": False,
    }
    return DiskNeeds(**(values | changes))


def test_only_the_result_is_counted_where_nothing_else_is_saved():
    assert held_bytes(needs()) == [(100, 10)]


def test_every_save_adds_up_and_the_last_is_at_the_end():
    rules = SaveRules(every_n_steps=30, every_n_epochs=2)
    assert held_bytes(needs(checkpoints=rules)) == [
        (30, 10),
        (50, 20),
        (60, 30),
        (90, 40),
        (100, 50),
    ]


def test_keeping_the_last_ones_bounds_what_is_held():
    rules = SaveRules(every_n_steps=1, last_n_steps=5)
    assert held_bytes(needs(checkpoints=rules))[-1][1] == 7 * 10 + 10


def test_a_rolling_state_counts_twice_since_the_new_one_is_whole_before_the_old_one_goes():
    held = held_bytes(needs(keeps_rolling_state=True))
    assert held == [(1, 100), (100, 50), (100, 60)]


def test_a_resumed_run_needs_room_only_for_what_is_still_to_come():
    rules = SaveRules(every_n_steps=30)
    assert held_bytes(needs(checkpoints=rules, first_step=60)) == [(90, 10), (100, 20)]


def test_a_disk_that_will_be_full_is_said_with_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 75, 25))
    events = []
    rules = SaveRules(every_n_steps=30)
    require_disk(needs(checkpoints=rules), tmp_path / "not yet", events.append)
    (notice,) = events
    assert notice.topic == "disk"
    assert "full at step 90 of 100" in notice.message
    with pytest.raises(EnvironmentFault, match="the result takes 30 B"):
        require_disk(needs(checkpoint_bytes=30), tmp_path, ignore)


def saved(**parts):
    settings = parts.pop("settings", {})
    machine = parts.pop("machine", {})
    return SavedState(
        path="state",
        progress=Progress(),
        identity=Identity(parts=parts),
        events_bytes=0,
        settings=settings,
        machine=machine,
    )


def facts(settings=None, machine=None, **parts):
    return RunFacts(identity=Identity(parts=parts), settings=settings or {}, machine=machine or {})


def test_settings_that_differ_are_shown_with_both_values():
    old = saved(settings={"learning_rate": 0.1, "block_lr": [1, 2], "loss_type": "l2"})
    old = SavedState(
        path="s",
        progress=Progress(),
        identity=Identity(parts={"settings": "a"}),
        events_bytes=0,
        settings=old.settings,
    )
    now = facts(settings={"learning_rate": 0.2, "block_lr": (1, 2), "vae": "x"}, **{"model": "m"})
    now = RunFacts(identity=Identity(parts={"settings": "b"}), settings=now.settings)
    assert changed(old, now) == {
        "learning_rate": "0.1, now 0.2",
        "loss_type": "l2, now nothing",
        "vae": "nothing, now x",
    }


def test_only_what_is_allowed_may_differ():
    old, now = saved(model="a", dataset="d"), facts(model="b", dataset="e")
    with pytest.raises(UserError, match="--allow-changed model dataset") as caught:
        require_same(old, now, dataset_changes=["removed: x.png"], emit=ignore)
    assert "dataset: removed: x.png" in str(caught.value)
    with pytest.raises(UserError, match="--allow-changed dataset"):
        require_same(old, now, allowed=["model"], emit=ignore)
    events = []
    names = require_same(old, now, allowed=["model", "dataset"], emit=events.append)
    assert names == {"model", "dataset"}
    assert len(events) == 2


def test_another_number_of_threads_is_said_and_no_reason_to_stop():
    events = []
    old = saved(model="a", machine={"threads": "2", "torch": "2.13"})
    require_same(
        old, facts(machine={"threads": "1", "torch": "2.13"}, model="a"), emit=events.append
    )
    (notice,) = events
    assert isinstance(notice, Notice)
    assert "threads 2, now 1" in notice.message
    assert "torch" not in notice.message


def test_the_helpers_end_with_the_training_whatever_happens():
    assert helper_line("darwin", 7) == ["caffeinate", "-i", "-w", "7"]
    assert helper_line("linux", 7)[0] == "systemd-inhibit"
    assert helper_line("linux", 7)[-4:] == ["tail", "--pid=7", "-f", os.devnull]


@pytest.mark.skipif(sys.platform == "win32", reason="has a call of its own")
def test_sleep_is_held_off_for_the_length_of_the_block(tmp_path, monkeypatch):
    with kept_awake(False) as agreed:
        assert not agreed
    helper = tmp_path / "systemd-inhibit"
    helper.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n", "ascii")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "platform", "linux")
    with kept_awake() as agreed:
        assert agreed
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with kept_awake() as agreed:
        assert not agreed


def test_a_record_of_items_that_is_damaged_tells_nothing_and_harms_nothing(tmp_path):
    from sdft.jobs.training.item_record import changes_since

    for number, content in enumerate(
        [b"no gzip", gzip.compress(b"[1"), gzip.compress(b"[]\n"), gzip.compress(b"5")]
    ):
        (tmp_path / f"d{number}.jsonl.gz").write_bytes(content)
        assert changes_since(tmp_path, f"d{number}", None) == []
