"""Commands to a run, as files that nobody trusts."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdft.control import (
    MAX_COMMAND_BYTES,
    ControlInbox,
    checked_arguments,
    read_answer,
    send_command,
    wait_for_answer,
)
from sdft.errors import UserError
from sdft.rundir import RunDir, RunLock


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "cat.run")
    run.control.mkdir(parents=True)
    return run


def plant(run: RunDir, number: int, content: bytes) -> str:
    """Put a command file there as a foreign program would."""
    command_id = f"{4 * 10**18 + number:020d}-00000000"
    (run.control / f"{command_id}.command.json").write_bytes(content)
    return command_id


def test_a_command_reaches_the_run_and_its_answer_the_asker(run: RunDir) -> None:
    with RunLock(run):
        inbox = ControlInbox(run, every_s=0)
        sent = send_command(run, "set", {"learning_rate": "1e-5"}, sender="test")
        (received,) = inbox.poll()
        assert received == sent
        assert received.arguments == {"learning_rate": 1e-5}
        inbox.answer(received.id, ok=True, message="done")
        answer = wait_for_answer(run, sent.id, timeout_s=0)
        assert answer is not None
        assert (answer.ok, answer.message) == (True, "done")
        assert inbox.poll() == ()
        assert [name for name in os.listdir(run.control) if "command" in name] == []


def test_commands_come_in_the_order_in_which_they_were_asked(run: RunDir) -> None:
    with RunLock(run):
        inbox = ControlInbox(run, every_s=0)
        for name in ("pause", "sample", "save", "resume"):
            send_command(run, name, sender="test")
        assert [command.name for command in inbox.poll()] == ["pause", "sample", "save", "resume"]


def test_a_run_without_a_process_takes_no_command(run: RunDir) -> None:
    with pytest.raises(UserError, match="no process"):
        send_command(run, "stop", sender="test")
    assert os.listdir(run.control) == []


def test_a_stop_that_nobody_heard_does_not_end_the_run_that_goes_on_later(run: RunDir) -> None:
    with RunLock(run):
        sent = send_command(run, "stop", sender="test")
    with RunLock(run):
        inbox = ControlInbox(run, every_s=0)
        assert inbox.poll() == ()
    answer = read_answer(run, sent.id)
    assert answer is not None
    assert not answer.ok


def test_what_comes_too_late_is_refused(run: RunDir) -> None:
    with RunLock(run):
        inbox = ControlInbox(run, every_s=0)
        sent = send_command(run, "save", sender="test")
        inbox.close()
    answer = read_answer(run, sent.id)
    assert answer is not None
    assert answer.message == "the run has ended"


def test_waiting_ends_when_the_process_is_gone(run: RunDir) -> None:
    with RunLock(run):
        sent = send_command(run, "save", sender="test")
    assert wait_for_answer(run, sent.id, timeout_s=60) is None


def test_waiting_sees_an_answer_that_comes_later(run: RunDir) -> None:
    with RunLock(run):
        inbox = ControlInbox(run, every_s=0)
        sent = send_command(run, "save", sender="test")
        later = threading.Timer(0.1, lambda: inbox.answer(sent.id, ok=True, message="saved"))
        later.start()
        answer = wait_for_answer(run, sent.id, timeout_s=60)
        later.join()
    assert answer is not None
    assert answer.message == "saved"


def test_the_folder_is_looked_at_no_oftener_than_asked(run: RunDir) -> None:
    now_s = 0.0
    inbox = ControlInbox(run, every_s=0.2, clock=lambda: now_s)
    assert inbox.poll() == ()
    plant(run, 1, b'{"name": "save", "arguments": {}}')
    now_s = 0.1
    assert inbox.poll() == ()
    now_s = 0.3
    assert len(inbox.poll()) == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("puase", {}),
        ("save", {"release": True}),
        ("set", {}),
        ("set", {"learning_rate": "fast"}),
        ("set", {"learning_rate": -1}),
        ("set", {"learning_rate": float("nan")}),
        ("set", {"learning_rate": 1e-5, "seed": 3}),
    ],
)
def test_what_no_command_is_gets_refused_before_it_is_sent(
    name: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(UserError):
        checked_arguments(name, arguments)


def test_an_inbox_bears_a_folder_that_is_not_there(tmp_path: Path) -> None:
    inbox = ControlInbox(RunDir(tmp_path / "none.run"), every_s=0)
    assert inbox.poll() == ()


def test_a_huge_command_is_refused_unread(run: RunDir) -> None:
    inbox = ControlInbox(run, every_s=0)
    command_id = plant(run, 7, b" " * (MAX_COMMAND_BYTES + 1))
    assert inbox.poll() == ()
    answer = read_answer(run, command_id)
    assert answer is not None
    assert not answer.ok


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
command_like = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["pause", "set", "stop"]) | json_values,
        "arguments": st.dictionaries(st.sampled_from(["release", "learning_rate"]), json_values)
        | json_values,
        "time_s": json_values,
        "sender": json_values,
    },
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=200)
    | command_like.map(lambda value: json.dumps(value).encode())
    | st.just(b"[" * 60_000)
)
def test_no_file_in_the_folder_disturbs_the_run(run: RunDir, content: bytes) -> None:
    inbox = ControlInbox(run, every_s=0)
    command_id = plant(run, 1, content)
    for command in inbox.poll():
        assert command.arguments == checked_arguments(command.name, command.arguments)
        inbox.answer(command.id, ok=True, message="")
    assert not (run.control / f"{command_id}.command.json").exists()
