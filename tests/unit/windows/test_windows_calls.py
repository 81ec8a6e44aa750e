"""What is said to Windows itself, with something in the place of its kernel that remembers it."""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

from sdft import windows
from sdft.jobs.training.awake import kept_awake
from sdft.jobs.training.stopping import TERMINATED, StopRequest
from sdft.shell import shell_line, windows_line


class Kernel:
    """In the place of kernel32: says yes and remembers what it was told."""

    def __init__(self) -> None:
        self.execution_states: list[int] = []
        self.handlers: list[Callable[[int], bool]] = []

    def SetThreadExecutionState(self, flags: int) -> int:
        self.execution_states.append(flags)
        return 0x80000000

    def SetConsoleCtrlHandler(self, handler: Callable[[int], bool], add: bool) -> int:
        (self.handlers.append if add else self.handlers.remove)(handler)
        return 1


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    # A handler as Windows calls it: from C, in a thread of its own.
    windll = types.SimpleNamespace(kernel32=kernel)
    monkeypatch.setattr(ctypes, "windll", windll, raising=False)
    monkeypatch.setattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(windows, "STAY_S", 0.3)
    return kernel


def test_sleep_is_held_off_for_the_length_of_a_training_and_no_longer(kernel: Kernel) -> None:
    with kept_awake() as agreed:
        assert agreed
        assert kernel.execution_states == [0x80000001]
    assert kernel.execution_states == [0x80000001, 0x80000000]


def test_sleep_is_held_off_no_longer_where_the_training_fails(kernel: Kernel) -> None:
    with pytest.raises(ZeroDivisionError), kept_awake():
        _ = 1 // 0
    assert kernel.execution_states[-1] == 0x80000000


@pytest.mark.parametrize("event", sorted(windows.CLOSING))
def test_a_window_that_is_closed_asks_for_a_stop_and_waits(kernel: Kernel, event: int) -> None:
    with StopRequest() as stop:
        (handler,) = kernel.handlers
        answers: list[bool] = []
        thread = threading.Thread(target=lambda: answers.append(bool(handler(event))))
        thread.start()
        while stop() is None:
            thread.join(0.01)
        # Windows ends the process as soon as the handler has answered: it must not do so yet.
        assert thread.is_alive()
        assert answers == []
        assert stop() == TERMINATED
        thread.join()
    assert answers == [True]
    assert kernel.handlers == []


@pytest.mark.parametrize("event", [0, 1])
def test_keys_are_left_to_python(kernel: Kernel, event: int) -> None:
    with StopRequest() as stop:
        assert not kernel.handlers[0](event)
        assert stop() is None


def test_a_process_that_reads_pictures_outlives_keys_and_windows(kernel: Kernel) -> None:
    windows.outlive_closing()
    (handler,) = kernel.handlers
    assert handler(0)
    assert handler(windows.CTRL_CLOSE_EVENT)


@pytest.mark.parametrize(("value", "on"), [(1, True), (0, False), (None, False)])
def test_long_paths_are_read_from_the_registry(
    monkeypatch: pytest.MonkeyPatch, value: int | None, on: bool
) -> None:
    class Key:
        def __enter__(self) -> Key:
            return self

        def __exit__(self, *error: object) -> None:
            return None

    def query(key: Key, name: str) -> tuple[int, int]:
        assert name == "LongPathsEnabled"
        if value is None:
            raise FileNotFoundError(2, "no such value")
        return value, 4

    registry: Any = types.ModuleType("winreg")
    registry.HKEY_LOCAL_MACHINE = 0
    registry.OpenKey = lambda root, place: Key()
    registry.QueryValueEx = query
    monkeypatch.setitem(sys.modules, "winreg", registry)
    monkeypatch.setattr(sys, "platform", "win32")
    assert windows.long_paths_are_on() is on


@pytest.mark.skipif(sys.platform == "win32", reason="says what other systems do")
def test_other_systems_are_left_alone() -> None:
    assert windows.long_paths_are_on() is None
    with windows.told_of_closing(lambda: pytest.fail("nothing was closed")):
        windows.outlive_closing()


WORDS = [
    "sdft",
    "train",
    r"D:\my cats\a&b",
    "50%",
    "a^b",
    'say "hi"',
    "D:\\x&\\",
    "",
    "1e-5",
    "a=b",
]


def windows_split(line: str) -> list[str]:
    """Split a line as C programs on Windows do. Source: "Parsing C command-line arguments"."""
    words, word, quoted, started, position = [], "", False, False, 0
    while position < len(line):
        character = line[position]
        slashes = 0
        while position < len(line) and line[position] == "\\":
            slashes += 1
            position += 1
        if slashes:
            if position < len(line) and line[position] == '"':
                word += "\\" * (slashes // 2)
                if slashes % 2:
                    word += '"'
                    position += 1
            else:
                word += "\\" * slashes
            started = True
            continue
        position += 1
        if character == '"':
            quoted, started = not quoted, True
        elif character == " " and not quoted:
            if started:
                words.append(word)
            word, started = "", False
        else:
            word, started = word + character, True
    return [*words, word] if started else words


def test_a_line_for_windows_is_split_into_the_same_words() -> None:
    assert windows_split(windows_line(WORDS)) == WORDS
    assert windows_split(subprocess.list2cmdline(WORDS)) == WORDS


def test_cmd_finds_nothing_to_obey_in_a_line() -> None:
    """Outside quotes none of the signs by which cmd joins, redirects or escapes is left."""
    for word in ("a&b", "a|b", "a>b", "a^b", "(a)", "a%b", "a,b;c"):
        line = windows_line([word])
        assert line.startswith('"')
        assert line.endswith('"')


def test_the_shown_line_is_for_the_system_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert windows_split(shell_line(WORDS)) == WORDS
    monkeypatch.setattr(sys, "platform", "linux")
    assert shlex.split(shell_line(WORDS)) == WORDS
