"""A run's state follows from its lock, its status and its last events."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdft.errors import UserError
from sdft.rundir import RunDir
from sdft.views.find_runs import run_at, runs_below
from sdft.views.history import RunReader
from sdft.views.run_state import RunState, look, run_state
from tests.tui.recorder import COMMAND, Recorder, example_run


def state_of(run: RunDir) -> RunState:
    reader = RunReader(run.events_file)
    while reader.advance():
        pass
    return run_state(reader.snapshot().summary, look(run))


def test_a_run_whose_process_holds_the_lock_is_running(tmp_path: Path) -> None:
    assert state_of(example_run(tmp_path / "a.run").run).name == "running"


def test_a_finished_run_is_finished(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "a.run")
    recorder.finish()
    assert state_of(recorder.run) == RunState(name="finished")


def test_a_stopped_run_has_its_reason_and_the_command_alone(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "a.run")
    recorder.stop("time limit")
    expected = RunState(name="stopped", reason="time limit", fix=f"{COMMAND} --resume auto")
    assert state_of(recorder.run) == expected


@pytest.mark.parametrize("has_lock", [False, True])
def test_a_run_without_process_and_last_word_died(tmp_path: Path, has_lock: bool) -> None:
    recorder = example_run(tmp_path / "a.run")
    recorder.unlock()
    if has_lock:
        recorder.lock(alive=False)
    state = state_of(recorder.run)
    assert state.name == "died"
    assert state.fix == f"{COMMAND} --resume auto"


def test_a_resumed_run_that_dies_does_not_ask_twice_for_resume(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.run")
    recorder.begin()
    line = recorder.run.events_file.read_text().replace(COMMAND, f"{COMMAND} --resume auto")
    recorder.run.events_file.write_text(line)
    assert state_of(recorder.run).fix == f"{COMMAND} --resume auto"


def test_an_empty_folder_waits_for_its_run(tmp_path: Path) -> None:
    assert state_of(RunDir(tmp_path)).name == "waiting"


def test_damaged_files_beside_the_events_are_as_none(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "a.run")
    recorder.run.lock_file.write_text("{")
    recorder.run.status_file.write_text('{"state": 3}')
    assert state_of(recorder.run).name == "died"


def test_the_newest_run_is_found_a_few_folders_below(tmp_path: Path) -> None:
    example_run(tmp_path / "output" / "old.run", steps_done=100)
    new = example_run(tmp_path / "projects" / "cat" / "new.run", steps_done=100)
    (tmp_path / "projects" / "notes").mkdir()
    assert [run.path.name for run in runs_below(tmp_path)] == ["new.run", "old.run"]
    assert run_at(tmp_path) == new.run
    assert run_at(tmp_path / "output" / "old").path.name == "old.run"
    assert run_at(new.path) == new.run
    (tmp_path / "soon.run").mkdir()
    assert run_at(tmp_path / "soon.run").path.name == "soon.run"


def test_a_folder_without_runs_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError) as caught:
            run_at(path)
        assert caught.value.problems[0].fix
