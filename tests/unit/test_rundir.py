"""A run folder is written by one process, and nothing in it is written over."""

import json
import os
import platform
import threading
import time

import pytest

from sdft.errors import DataError, UserError
from sdft.rundir import RunDir, RunLock, RunStatus


def run_in(tmp_path):
    return RunDir.of(tmp_path, "cats")


def test_a_lock_that_is_held_names_its_holder(tmp_path):
    run = run_in(tmp_path)
    with RunLock(run), pytest.raises(UserError, match=f"process {os.getpid()}"), RunLock(run):
        pass
    assert not run.lock_file.exists()


def test_a_lock_of_a_process_that_is_gone_is_taken_over(tmp_path):
    run = run_in(tmp_path)
    run.path.mkdir()
    gone = {"pid": 2**22 + 1, "host": platform.node(), "process_started": 1.0, "start": 1.0}
    run.lock_file.write_text(json.dumps(gone), "utf-8")
    with RunLock(run):
        assert json.loads(run.lock_file.read_text("utf-8"))["pid"] == os.getpid()


def test_a_lock_of_another_process_that_got_the_same_number_is_taken_over(tmp_path):
    run = run_in(tmp_path)
    run.path.mkdir()
    other = {"pid": os.getpid(), "host": platform.node(), "process_started": 1.0, "start": 1.0}
    run.lock_file.write_text(json.dumps(other), "utf-8")
    with RunLock(run):
        assert run.lock_file.exists()


def test_an_old_empty_lock_is_taken_over_and_a_new_one_is_waited_for(tmp_path):
    run = run_in(tmp_path)
    run.path.mkdir()
    run.lock_file.touch()
    os.utime(run.lock_file, (time.time() - 60, time.time() - 60))
    with RunLock(run):
        pass
    run.lock_file.touch()
    holder = {"pid": os.getpid(), "host": "elsewhere", "start": 1.0}
    writes_late = threading.Timer(0.2, run.lock_file.write_text, [json.dumps(holder), "utf-8"])
    writes_late.start()
    with pytest.raises(UserError, match="elsewhere"), RunLock(run):
        pass
    writes_late.join()


def test_what_is_moved_aside_gets_the_next_free_number(tmp_path):
    run = run_in(tmp_path)
    checkpoint = tmp_path / "cats.safetensors"
    for number in (1, 2):
        run.path.mkdir()
        checkpoint.write_text(str(number), "utf-8")
        run.move_aside(checkpoint)
    assert (tmp_path / "cats-1.safetensors").read_text("utf-8") == "1"
    assert (tmp_path / "cats-2.safetensors").read_text("utf-8") == "2"
    assert (tmp_path / "cats.run-2").is_dir()
    assert not run.path.exists()


def test_a_status_comes_back_and_a_foreign_file_is_named(tmp_path):
    run = run_in(tmp_path)
    assert run.read_status() is None
    status = RunStatus(
        state="finished", config_digest="d", steps=3, epochs=1, loss=0.5, checkpoint="c"
    )
    run.write_status(status)
    assert run.read_status() == status
    run.status_file.write_text('{"other": 1}', "utf-8")
    with pytest.raises(DataError, match="not a run's status file"):
        run.read_status()
