"""Broken files by chance: bytes of good ones, changed in the ways that harm parsers.

In: good files. Out: a seeded, endless row of bad ones, and a guard that notices what a parser must
not do with them.
"""

from __future__ import annotations

import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_CASE_S = 5.0
"""Far above what any of these files takes, even on a busy machine."""

MAX_CASE_BYTES = 128 << 20
"""Of memory that a case may take at its peak; the files have some kilobytes."""

TOKENS = (
    *(b"", b"\x00", b"\xff" * 8, b"\x80\x02", b"[", b"]" * 200, b"{" * 2000, b'"', b"\\u0000"),
    *(b"null", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"../../../tmp/x", b"/etc/passwd"),
    *(b"cos\nsystem\n(S'true'\ntR.", b"c__builtin__\neval\n", b"\r\n", b"\xef\xbb\xbf", b"\n" * 50),
    *(b"'''", b"= [", b"[[datasets]]", b"__class__", b"PK\x03\x04", b"9" * 5000),
    *(b"0x" + b"f" * 5000, b"= 0b1" + b"0" * 20000, b"1e400", b"-0", b"2026-99-99"),
)

FORBIDDEN = (
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "ctypes.dlopen", "exec"),
)


def mutations(good: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Give good contents changed in one to four places."""
    draws = random.Random(seed)
    while True:
        content = bytearray(draws.choice(good))
        for _ in range(draws.randint(1, 4)):
            content = _changed(content, good, draws)
        yield bytes(content)


def _changed(content: bytearray, good: Sequence[bytes], draws: random.Random) -> bytearray:
    size = len(content)
    at = draws.randint(0, size)
    end = min(size, at + draws.choice((1, 2, 4, 8, 64)))
    kind = draws.randrange(7)
    if kind == 0 and size:
        content[draws.randrange(size)] ^= 1 << draws.randrange(8)
    elif kind == 1:
        content[at:at] = draws.choice(TOKENS)
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        del content[at:end]
    elif kind == 4:
        content[at:end] = content[at:end] * draws.choice((2, 100))
    elif kind == 5:
        other = draws.choice(good)
        start = draws.randint(0, len(other))
        content[at:end] = other[start : start + 64]
    elif kind == 6:
        content[at:end] = draws.randbytes(end - at)
    return content


class Watched:
    """Notices forbidden deeds while it is on; there is one for the process."""

    def __init__(self) -> None:
        self.is_on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open":
            _, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.seen.append(f"writes {arguments[0]}")
        elif event in FORBIDDEN and not _is_import(event):
            self.seen.append(f"{event} {arguments}"[:200])

    @contextmanager
    def on(self) -> Iterator[None]:
        self.seen.clear()
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


def _is_import(event: str) -> bool:
    """Modules that a parser imports when it is first used are executed by the import system."""
    if event != "exec":
        return False
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


WATCHED = Watched()


def fuzz(
    good: Sequence[bytes],
    parse: Callable[[Path], object],
    *,
    file: Path,
    allowed: tuple[type[Exception], ...],
    num_cases: int,
    seed: int,
) -> dict[str, int]:
    """Feed broken files to a parser; return how many it took and how many it refused.

    Any error but those that are allowed, any deed that is forbidden, and any case that takes too
    long or too much memory fails, with the file's content in the message.
    """
    for content in good:
        file.write_bytes(content)
        parse(file)
    counts = {"taken": 0, "refused": 0}
    tracemalloc.start()
    try:
        for number, content in zip(range(num_cases), mutations(good, seed), strict=False):
            file.write_bytes(content)
            tracemalloc.reset_peak()
            started_s = time.process_time()
            what = ""
            try:
                with WATCHED.on():
                    parse(file)
                counts["taken"] += 1
            except allowed:
                counts["refused"] += 1
            except Exception as error:  # noqa: BLE001 - which ones are allowed is the test
                what = f"{type(error).__name__}: {error}"
            taken_s = time.process_time() - started_s
            peak_bytes = tracemalloc.get_traced_memory()[1]
            what = what or "; ".join(WATCHED.seen)
            what = what or (f"took {taken_s:.1f} s" if taken_s > MAX_CASE_S else "")
            what = what or (f"took {peak_bytes} bytes" if peak_bytes > MAX_CASE_BYTES else "")
            assert not what, f"case {number}, seed {seed}: {what}\n{content[:2000]!r}"
    finally:
        tracemalloc.stop()
    assert counts["refused"] > 0, "nothing was ever refused, so nothing was tried"
    return counts
