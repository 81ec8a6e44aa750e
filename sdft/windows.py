"""What only Windows has: sleep, a closing console window, long paths.

The one file of the package that calls Windows itself, so that the tests can stand in for it in one
place. On other systems nothing here does anything.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_ES_CONTINUOUS = 0x80000000
_ES_SYSTEM_REQUIRED = 0x00000001
"""Source: winbase.h, SetThreadExecutionState."""

CTRL_CLOSE_EVENT = 2
CTRL_LOGOFF_EVENT = 5
CTRL_SHUTDOWN_EVENT = 6
"""Source: consoleapi.h, HandlerRoutine. Ctrl-C (0) and Ctrl-Break (1) reach Python as signals."""

CLOSING = frozenset({CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT})

STAY_S = 30.0
"""Windows ends the process after about 5 s, or as soon as it is told that all is done."""

_PRIMARY_LANGUAGE = 0x3FF
_LANG_JAPANESE = 0x11
"""Source: winnt.h, PRIMARYLANGID and LANG_JAPANESE."""

_LONG_PATHS = r"SYSTEM\CurrentControlSet\Control\FileSystem"

ENABLE_LONG_PATHS = f"reg add HKLM\\{_LONG_PATHS} /v LongPathsEnabled /t REG_DWORD /d 1 /f"


_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def is_file_name(name: str) -> bool:
    """Tell whether files can have this name on Windows too, where what we write may be copied to.

    Source: "Naming Files, Paths, and Namespaces" in the documentation of Win32.
    """
    refused = any(letter in '<>:"/\\|?*' or ord(letter) < 32 for letter in name)
    return bool(name) and not refused and name[-1] not in ". " and not is_device_name(name)


def is_device_name(name: str) -> bool:
    """Tell whether Windows takes this name, in whatever folder, for a device."""
    return _RESERVED.fullmatch(name.rstrip(". ")) is not None


def is_windows() -> bool:
    return sys.platform == "win32"


@contextlib.contextmanager
def kept_awake() -> Iterator[bool]:
    """Hold sleep off while this thread is in the block; give whether Windows agreed."""
    kernel = _kernel()
    agreed = bool(kernel.SetThreadExecutionState(_ES_CONTINUOUS | _ES_SYSTEM_REQUIRED))
    try:
        yield agreed
    finally:
        kernel.SetThreadExecutionState(_ES_CONTINUOUS)


@contextlib.contextmanager
def told_of_closing(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell`, in another thread, when the console's window is closed while the block runs.

    Windows then lets the process live for about 5 s. In these a step may end and a state be
    written; where they do not suffice the last state stays as it is.
    """
    if not is_windows():
        yield
        return

    def closing(event: int) -> bool:
        if event not in CLOSING:
            return False
        tell()
        time.sleep(STAY_S)
        return True

    handler = _handler_type()(closing)
    kernel = _kernel()
    kernel.SetConsoleCtrlHandler(handler, True)
    try:
        yield
    finally:
        kernel.SetConsoleCtrlHandler(handler, False)


def outlive_closing() -> None:
    """Let this process end with its parent, not with the window: the parent still needs it."""
    if is_windows():
        # Held by the module: Windows keeps no reference, and a handler that is gone crashes.
        _kept.append(_handler_type()(_wait_for_the_parent))
        _kernel().SetConsoleCtrlHandler(_kept[-1], True)


def speaks_japanese() -> bool:
    """Tell whether this person's Windows is a Japanese one; it sets no LANG."""
    if not is_windows():
        return False
    primary = int(_kernel().GetUserDefaultUILanguage()) & _PRIMARY_LANGUAGE
    return primary == _LANG_JAPANESE


def long_paths_are_on() -> bool | None:
    """Tell whether paths of more than 260 characters work; None where that is no question."""
    if not is_windows():
        return None
    import winreg

    registry: Any = winreg
    try:
        with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, _LONG_PATHS) as key:
            return bool(registry.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return False


_kept: list[Any] = []


def _wait_for_the_parent(event: int) -> bool:
    # Ctrl-C and Ctrl-Break too: the parent alone decides what they mean.
    if event in CLOSING:
        time.sleep(STAY_S)
    return True


def _kernel() -> Any:
    import ctypes

    return ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]


def _handler_type() -> Any:
    import ctypes

    kind: Any = ctypes.WINFUNCTYPE  # type: ignore[attr-defined, unused-ignore]
    return kind(ctypes.c_int, ctypes.c_uint)
