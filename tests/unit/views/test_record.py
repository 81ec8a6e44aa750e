from __future__ import annotations

import json
import threading

import pytest

from sdft.errors import EnvironmentFault
from sdft.events import EventLine, Notice, StageProgress
from sdft.rundir import RunDir
from sdft.views.fanout import Fanout
from sdft.views.jsonl import JsonlWriter
from sdft.views.record import RunRecorder


def note(message: str) -> Notice:
    return Notice(severity="info", topic="test", message=message)


def messages(path) -> list[str]:
    return [json.loads(line)["message"] for line in path.read_text(encoding="ascii").splitlines()]


def write(path, *texts: str, start_at_bytes: int | None = None) -> int:
    writer = JsonlWriter(path, start_at_bytes)
    for text in texts:
        writer(1.5, note(text))
    position = writer.position()
    writer.close()
    return position


def test_each_event_is_a_line_that_reads_back(tmp_path):
    path = tmp_path / "run" / "events.jsonl"
    write(path, "\u3042 [red] \n second")
    (line,) = path.read_text(encoding="ascii").splitlines()
    assert EventLine.read(line) == (1.5, note("\u3042 [red] \n second"))


def test_a_line_is_on_the_disk_before_the_writer_is_closed(tmp_path):
    writer = JsonlWriter(tmp_path / "events.jsonl")
    writer(0.0, note("a"))
    assert messages(tmp_path / "events.jsonl") == ["a"]
    writer.close()


def test_progress_of_stages_is_not_kept(tmp_path):
    writer = JsonlWriter(tmp_path / "events.jsonl")
    writer(0.0, StageProgress(stage="latents", done=1))
    assert writer.position() == 0
    writer.close()


def test_a_continued_run_cuts_what_came_after_its_state(tmp_path):
    path = tmp_path / "events.jsonl"
    position = write(path, "kept")
    write(path, "done again")
    write(path, "new", start_at_bytes=position)
    assert messages(path) == ["kept", "new"]


def test_a_new_run_starts_from_nothing(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path, "old")
    write(path, "new", start_at_bytes=0)
    assert messages(path) == ["new"]


@pytest.mark.parametrize("length", [1, 200_000])
def test_a_line_that_a_crash_cut_off_is_removed(tmp_path, length):
    path = tmp_path / "events.jsonl"
    write(path, "whole")
    with path.open("ab") as file:
        file.write(b"x" * length)
    write(path, "next")
    assert messages(path) == ["whole", "next"]


def test_events_that_the_state_counts_but_the_disk_lost_are_said_to_be_gone(tmp_path):
    path = tmp_path / "events.jsonl"
    position = write(path, "kept")
    write(path, "new", start_at_bytes=position + 7)
    assert messages(path)[0] == "kept"
    assert "7 bytes" in messages(path)[1]
    assert messages(path)[2:] == ["new"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"events\.jsonl"):
        JsonlWriter(tmp_path / "file" / "events.jsonl")


def test_a_recorder_keeps_events_until_the_folder_is_known(tmp_path):
    recorder = RunRecorder()
    recorder(1.0, note("before"))
    recorder(1.0, StageProgress(stage="index", done=1))
    recorder.open(RunDir(tmp_path), 0)
    recorder(2.0, note("after"))
    recorder.close()
    assert messages(tmp_path / "events.jsonl") == ["before", "after"]
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines() == [
        "1970-01-01 00:00:01 before",
        "1970-01-01 00:00:02 after",
    ]


def test_a_recorder_that_was_never_opened_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorder = RunRecorder()
    recorder(1.0, note("x"))
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_the_log_goes_on_where_it_ended(tmp_path):
    for text in ("one", "two"):
        recorder = RunRecorder()
        recorder.open(RunDir(tmp_path))
        recorder(0.0, note(text))
        recorder.close()
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["one", "two"]


def test_every_listener_gets_every_event_with_one_time():
    heard: list[tuple[str, float, str]] = []
    times = iter([1.0, 2.0])
    emit = Fanout(
        [
            lambda time_s, event: heard.append(("first", time_s, event.message)),
            lambda time_s, event: heard.append(("second", time_s, event.message)),
        ],
        clock=lambda: next(times),
    )
    emit(note("a"))
    emit(note("b"))
    assert heard == [
        ("first", 1.0, "a"),
        ("second", 1.0, "a"),
        ("first", 2.0, "b"),
        ("second", 2.0, "b"),
    ]


def test_listeners_are_never_called_by_two_threads_at_once():
    inside = threading.Semaphore(1)
    clashes: list[bool] = []

    def listen(time_s: float, event: object) -> None:
        clashes.append(not inside.acquire(blocking=False))
        inside.release()

    emit = Fanout([listen])
    threads = [
        threading.Thread(target=lambda: [emit(note("x")) for _ in range(200)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clashes) == 800
    assert not any(clashes)


def test_a_listener_may_speak_itself():
    heard: list[str] = []
    emits: list[Fanout] = []

    def echo(time_s: float, event: Notice) -> None:
        heard.append(event.message)
        if event.message == "a":
            emits[0](note("b"))

    emits.append(Fanout([echo]))
    emits[0](note("a"))
    assert heard == ["a", "b"]
