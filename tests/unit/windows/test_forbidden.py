"""What cannot work on Windows is not in the package, as far as its syntax trees tell.

Each rule goes from one module's tree to what breaks it there, and is fed lines in which it has to
find something, so that no rule can be blind.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import sdft

ROOT = Path(sdft.__file__).parent

SIGNALS_OF_WINDOWS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIGBREAK"}
"""Source: the documentation of signal.signal."""

SIGNAL_FUNCTIONS_OF_WINDOWS = {"signal", "getsignal", "raise_signal", "default_int_handler"}
SIGNAL_NAMES_OF_WINDOWS = {"SIG_IGN", "SIG_DFL", "Signals", "CTRL_C_EVENT", "CTRL_BREAK_EVENT"}

UNIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"}
UNIX_MODULES |= {"curses", "readline", "crypt", "nis", "spwd"}

UNIX_FUNCTIONS = {"fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "statvfs"}
UNIX_FUNCTIONS |= {"getloadavg", "uname", "killpg", "getpgid", "setsid", "mkfifo", "mknod", "chown"}
UNIX_FUNCTIONS |= {
    "lchown",
    "chroot",
    "sync",
    "nice",
    "getpriority",
    "setpriority",
    "wait",
    "wait3",
}
UNIX_FUNCTIONS |= {"posix_spawn", "posix_fadvise", "posix_fallocate", "pread", "pwrite", "sendfile"}
UNIX_FUNCTIONS |= {
    "sched_getaffinity",
    "sched_setaffinity",
    "sysconf",
    "ttyname",
    "openpty",
    "fchmod",
}

SHELLS = {"system", "popen", "spawnl", "startfile", "getoutput", "getstatusoutput"}

NOT_IN_A_NAME = set('<>:"|?*')
"""Source: Windows' rules for naming files; / and \\ part names."""

PLACES_OF_UNIX = ("/tmp", "/dev", "/bin", "/usr", "/etc", "/var", "/proc", "/home")

Rule = Callable[[ast.Module], Iterator[ast.AST]]


def dotted(node: ast.AST) -> str:
    """Return `os.path.join` for such an expression, or an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield every text that is not a docstring."""
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in docstrings
        ):
            yield node


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {word.arg: word.value for word in call.keywords if word.arg}


def unix_modules(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
        else:
            continue
        if names & UNIX_MODULES:
            yield node


def unix_functions(tree: ast.Module) -> Iterator[ast.AST]:
    """`os.fork` and the like, but for those that stand behind a `hasattr(os, "name")`."""
    guarded = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and dotted_call(node.test) == "hasattr":
            assert isinstance(node.test, ast.Call)
            asked = node.test.args[1]
            guarded |= {
                inner
                for statement in node.body
                for inner in ast.walk(statement)
                if isinstance(inner, ast.Attribute) and isinstance(asked, ast.Constant)
                if inner.attr == asked.value
            }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in guarded:
            head, _, name = dotted(node).rpartition(".")
            if head == "os" and name in UNIX_FUNCTIONS:
                yield node
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node for alias in node.names if alias.name in UNIX_FUNCTIONS)


def dotted_call(node: ast.AST) -> str:
    return dotted(node.func) if isinstance(node, ast.Call) else ""


def forked_processes(tree: ast.Module) -> Iterator[ast.AST]:
    """A way of starting processes that is not `spawn`, or one that the system chooses."""
    for name, call in called(tree):
        if name.endswith(("get_context", "set_start_method")):
            method = call.args[0] if call.args else None
            if not (isinstance(method, ast.Constant) and method.value == "spawn"):
                yield call
        if name.split(".")[-1] == "ProcessPoolExecutor" and "mp_context" not in keywords(call):
            yield call
        if name in ("multiprocessing.Process", "multiprocessing.Pool", "multiprocessing.Queue"):
            yield call
        if name.split(".")[-1] == "DataLoader" and "num_workers" in keywords(call):
            yield call


def foreign_signals(tree: ast.Module) -> Iterator[ast.AST]:
    known = SIGNALS_OF_WINDOWS | SIGNAL_FUNCTIONS_OF_WINDOWS | SIGNAL_NAMES_OF_WINDOWS
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, _, name = dotted(node).rpartition(".")
            if head == "signal" and name not in known:
                yield node
    for text in texts(tree):
        if re.fullmatch("SIG[A-Z0-9]+", text.value) and text.value not in SIGNALS_OF_WINDOWS:
            yield text


def shell_strings(tree: ast.Module) -> Iterator[ast.AST]:
    for name, call in called(tree):
        if name.startswith(("os.", "subprocess.")) and name.split(".")[-1] in SHELLS:
            yield call
        shell = keywords(call).get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and not shell.value):
            yield call
        if name in ("subprocess.run", "subprocess.Popen", "subprocess.check_output"):
            line = call.args[0] if call.args else None
            if isinstance(line, ast.JoinedStr) or (
                isinstance(line, ast.Constant) and isinstance(line.value, str)
            ):
                yield call


def flushed_folders(tree: ast.Module) -> Iterator[ast.AST]:
    """`os.fsync` of anything but an open file; a folder cannot even be opened on Windows."""
    guarded = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and "os.name != 'posix'" in ast.unparse(function):
            guarded |= set(ast.walk(function))
    for name, call in called(tree):
        if name == "os.fsync" and call not in guarded:
            argument = call.args[0]
            if not (isinstance(argument, ast.Call) and dotted(argument.func).endswith(".fileno")):
                yield call


def places_of_unix(tree: ast.Module) -> Iterator[ast.AST]:
    for text in texts(tree):
        if text.value.startswith(
            ("/tmp", "/dev", "/bin", "/usr", "/etc", "/var", "/proc", "/home")
        ):
            yield text


def names_with_colons(tree: ast.Module) -> Iterator[ast.AST]:
    """A text that becomes part of a path and has what no name may have on Windows."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.right]
        elif isinstance(node, ast.Call):
            last = node.func.attr if isinstance(node.func, ast.Attribute) else dotted(node.func)
            if last in ("with_name", "with_suffix", "with_stem", "joinpath", "Path"):
                parts = node.args
        for part in parts:
            for text in made_of(part):
                if NOT_IN_A_NAME & set(text.value):
                    yield text


def made_of(node: ast.expr) -> list[ast.Constant]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node]
    if isinstance(node, ast.JoinedStr):
        return [part for part in node.values if isinstance(part, ast.Constant)]
    return []


def text_without_encoding(tree: ast.Module) -> Iterator[ast.AST]:
    """A text file or a pipe whose encoding would be the code page of the system."""
    for name, call in called(tree):
        given, last = keywords(call), name.split(".")[-1]
        if not name and isinstance(call.func, ast.Attribute):
            last = call.func.attr
        whole = last in ("read_text", "write_text") and name != last
        if whole and "encoding" not in given and len(call.args) < 1 + (last == "write_text"):
            yield call
        if last in ("open", "NamedTemporaryFile") and not name.startswith(("os.", "Image.")):
            at = 1 if name == "open" else 0
            mode = given.get("mode", call.args[at] if len(call.args) > at else None)
            binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
            opens_text = mode is None or isinstance(mode, ast.Constant)
            if opens_text and not binary and "encoding" not in given and is_file_open(call, name):
                yield call
        as_text = given.get("text")
        if isinstance(as_text, ast.Constant) and as_text.value is True and "encoding" not in given:
            yield call


def is_file_open(call: ast.Call, name: str) -> bool:
    """Tell `path.open()` and `open(path)` from the `open` of something else."""
    if name == "open":
        return True
    words = {"r", "w", "a", "x", "r+", "w+", "a+"}
    mode = call.args[0] if call.args else None
    named = isinstance(mode, ast.Constant) and str(mode.value) in words
    return named or (mode is None and any(part in name for part in ("path", "file")))


def printed_beyond_ascii(tree: ast.Module) -> Iterator[ast.AST]:
    for name, call in called(tree):
        if name == "print" or name.endswith((".print", "stdout.write", "stderr.write")):
            for argument in call.args:
                yield from (text for text in texts(argument) if not text.value.isascii())


RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "modules of Unix": (unix_modules, ("import fcntl", "from resource import getrusage")),
    "functions of Unix": (unix_functions, ("import os\nos.statvfs('x')", "from os import getuid")),
    "processes that fork": (forked_processes, ("get_context('fork')", "ProcessPoolExecutor(2)")),
    "signals that Windows lacks": (
        foreign_signals,
        ("signal.signal(signal.SIGHUP, handler)", "getattr(signal, 'SIGUSR')", "signal.alarm(3)"),
    ),
    "lines for a shell": (
        shell_strings,
        ("subprocess.run(line, shell=True)", "subprocess.run(f'rm {path}')", "os.system('x')"),
    ),
    "folders that are flushed": (flushed_folders, ("os.fsync(os.open(path, os.O_RDONLY))",)),
    "places of Unix": (places_of_unix, ("folder = '/tmp/x'",)),
    "names that Windows refuses": (
        names_with_colons,
        ("path / f'{name}:{number}.txt'", "path.with_name('a?')"),
    ),
    "text in the system's code page": (
        text_without_encoding,
        ("path.read_text()", "open(path)", "path.open('w')", "run(line, text=True)"),
    ),
    "signs beyond ASCII in what is printed": (printed_beyond_ascii, ("print('\\u2588')",)),
}
"""Rules, and lines that each has to find."""

ALLOWED = {
    ("signals that Windows lacks", "jobs/training/stopping.py"): "asks with hasattr first",
    ("signals that Windows lacks", "jobs/processes.py"): "asks with hasattr, compares a known name",
    ("places of Unix", "jobs/environment.py"): "read only where it exists",
    ("places of Unix", "jobs/benching/figures.py"): "read only where it exists",
}
"""The guarded files, each with how it is guarded."""


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module by its place in the package."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(ROOT.rglob("*.py"))
    }


@pytest.mark.parametrize("name", RULES)
def test_nothing_in_the_package_needs_what_windows_lacks(name: str) -> None:
    rule, _ = RULES[name]
    found = [
        f"{place}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"
        for place, tree in trees().items()
        if (name, place) not in ALLOWED
        for node in rule(tree)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", RULES)
def test_each_rule_finds_what_it_is_for(name: str) -> None:
    rule, lines = RULES[name]
    for line in lines:
        assert list(rule(ast.parse(line))), line


def test_every_exception_is_still_needed() -> None:
    for name, place in ALLOWED:
        assert list(RULES[name][0](trees()[place])), (name, place)


def test_only_one_module_calls_windows() -> None:
    callers = {
        place
        for place, tree in trees().items()
        for node in ast.walk(tree)
        if {"windll", "winreg", "msvcrt", "WINFUNCTYPE"} & set(names_in(node))
    }
    assert callers == {"windows.py"}


def names_in(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return []


@pytest.mark.skipif(os.name != "posix", reason="these names exist on Unix")
def test_the_names_of_functions_are_those_of_python() -> None:
    """A misspelt name would guard nothing."""
    assert [name for name in sorted(UNIX_FUNCTIONS) if not hasattr(os, name)] == []


def test_the_whole_suite_starts_processes_by_spawn() -> None:
    assert multiprocessing.get_start_method() == "spawn"
