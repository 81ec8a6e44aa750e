"""A training obeys commands between two steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdft.control import Answer, ControlInbox, read_answer, send_command
from sdft.errors import EnvironmentFault
from sdft.events import ControlAnswered, Event, PausedChanged
from sdft.jobs.controlled import Actions, Controlled
from sdft.rundir import RunDir, RunLock


class Training:
    """What a job gives to Controlled, with a diary instead of a model."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.diary: list[str] = []
        self.events: list[Event] = []
        self.reason: str | None = None
        self.asleep: list[str] = []
        """Commands that come in while it sleeps, one a look."""
        self.controlled = Controlled(
            ControlInbox(run, every_s=0),
            Actions(
                save=self.save,
                sample=lambda: self.note("sample"),
                set_learning_rate=lambda rate: self.note(f"lr {rate}"),
                stop=self.stop,
                restart_clock=lambda: None,
                release=lambda: self.diary.append("release"),
                take_back=lambda: self.diary.append("take back"),
            ),
            emit=self.events.append,
            stop_reason=lambda: self.reason,
            sleep=self.sleep,
        )

    def note(self, words: str) -> str:
        self.diary.append(words)
        return words

    def save(self) -> str:
        return self.note("save")

    def stop(self) -> None:
        self.reason = "asked"

    def sleep(self, duration_s: float) -> None:
        self.diary.append("sleep")
        if self.asleep:
            send_command(self.run, self.asleep.pop(0), sender="test")

    def ask(self, name: str, **arguments: object) -> Answer:
        command = send_command(self.run, name, arguments, sender="test")
        self.controlled.after_step(7)
        answer = read_answer(self.run, command.id)
        assert answer is not None
        return answer


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    run = RunDir(tmp_path / "cat.run")
    with RunLock(run):
        yield Training(run)


def test_save_sample_and_set_are_done_once_answered_and_recorded(training: Training) -> None:
    assert training.ask("save").message == "save"
    assert training.ask("sample").ok
    assert training.ask("set", learning_rate=2e-6).message == "lr 2e-06"
    assert training.diary == ["save", "sample", "lr 2e-06"]
    recorded = [event for event in training.events if isinstance(event, ControlAnswered)]
    assert [(event.command, event.ok, event.step) for event in recorded] == [
        ("save", True, 7),
        ("sample", True, 7),
        ("set", True, 7),
    ]


def test_a_pause_lasts_until_resume_and_other_commands_work_meanwhile(training: Training) -> None:
    training.asleep = ["save", "resume"]
    assert training.ask("pause").message == "paused after step 7"
    assert training.diary == ["sleep", "save", "sleep"]
    changes = [event.paused for event in training.events if isinstance(event, PausedChanged)]
    assert changes == [True, False]


def test_ctrl_c_ends_a_pause(training: Training) -> None:
    training.sleep = None  # type: ignore[assignment]
    training.reason = "interrupted"
    assert training.ask("pause").ok
    assert training.events[-1] == PausedChanged(paused=False, released=False, step=7)


def test_stop_ends_a_pause_and_the_run(training: Training) -> None:
    training.asleep = ["stop"]
    training.ask("pause")
    assert training.reason == "asked"


def test_a_pause_with_release_gives_the_memory_back_and_takes_it_again(training: Training) -> None:
    training.asleep = ["sample", "resume"]
    assert "memory is free" in training.ask("pause", release=True).message
    assert training.diary == ["release", "sleep", "sleep", "take back"]
    refused = [e for e in training.events if isinstance(e, ControlAnswered) and not e.ok]
    assert [event.command for event in refused] == ["sample"]


def test_what_cannot_be_done_is_refused_and_the_run_goes_on(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> str:
        raise EnvironmentFault(what="the disk is full")

    training.controlled._actions = Actions(
        save=full,
        sample=full,
        set_learning_rate=str,
        stop=training.stop,
        restart_clock=lambda: None,
    )
    answer = training.ask("save")
    assert (answer.ok, answer.message) == (False, "the disk is full")
    assert training.reason is None


def test_resume_without_a_pause_is_no_mistake(training: Training) -> None:
    assert training.ask("resume").message == "the run is not paused"
