"""What speaks to object stores: fsspec, with tries that are said and words without credentials.

In: URLs. Out: listings' entries, contents, states. fsspec finds credentials where each store's own
tools do: environment variables, profiles, the machine's role.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from sdft.dataset.sources import State, mark_of
from sdft.errors import EnvironmentFault
from sdft.urls import redacted

TRIES = 4
FIRST_WAIT_S = 0.5
"""Doubled before each further try."""

_PACKAGES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""Extras of ours that bring what fsspec needs for a scheme."""

MARKS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
"""What listings of different stores call that by which a change is seen; the first there counts."""

_Result = TypeVar("_Result")


def with_retries(
    act: Callable[[], _Result], url: str, note: Callable[[str], None], *, done: str = "read"
) -> _Result:
    """Return what a store answers; what fails in passing is tried again. `done` is a word for it.

    Raises: OSError; its words hold no credentials.
    """
    for number in range(1, TRIES + 1):
        try:
            return act()
        except FileNotFoundError:
            raise FileNotFoundError(
                errno.ENOENT, "there is no such object or prefix", url
            ) from None
        except PermissionError:
            words = "the store gives no access with the credentials found here"
            raise PermissionError(errno.EACCES, words, url) from None
        except _faults() as error:
            reason = redacted(" ".join(f"{type(error).__name__}: {error}".split()))
            if number == TRIES or _is_final(error):
                raise OSError(errno.EIO, f"tried {number} times: {reason}", url) from None
            note(f"{url} was not {done} at once and is tried again: {reason}")
            time.sleep(FIRST_WAIT_S * 2 ** (number - 1))
    raise AssertionError("the last try returns or raises")


def _faults() -> tuple[type[BaseException], ...]:
    """Return what the drivers raise: most of it is no OSError, and only what is used is loaded."""
    found: list[type[BaseException]] = [OSError]
    for module, name in (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("gcsfs.retry", "HttpError"),
        ("azure.core.exceptions", "AzureError"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _is_final(error: BaseException) -> bool:
    """Tell whether another try cannot help: no or wrong credentials, a name that cannot be."""
    return type(error).__name__ in (
        "NoCredentialsError",
        "PartialCredentialsError",
        "ParamValidationError",
        "ProfileNotFound",
        "DefaultCredentialsError",
    )


_opening = threading.Lock()


@cache
def system_of(scheme: str, *, writes: bool = False) -> Any:
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a") and not writes:
        # Retried here, where it is said, not in two further places that say nothing.
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
        # More would ask for each object's size before it is read; images are small.
        options["max_concurrency"] = 1
    elif scheme in ("s3", "s3a"):
        # Each of these holds a part of some 50 MB in memory.
        options["max_concurrency"] = 4
    try:
        system = fsspec.filesystem(scheme, use_listings_cache=False, **options)
    except ImportError as error:
        extra = _PACKAGES.get(scheme)
        package = f'"sdft-trainer[{extra}]"' if extra else "adlfs"
        raise EnvironmentFault(
            what=f"{scheme}:// needs a package that is not installed ({error})",
            fix=f"python -m pip install {package}",
        ) from error
    if scheme in ("s3", "s3a") and not writes:
        system.retries = 1
    return system


def opened(url: str, *, writes: bool = False) -> tuple[Any, str]:
    """Return what drives a store, and the name of an object there.

    Of a large object that is written the driver itself sends parts again: all of it anew for one
    of hundreds would take too long.
    """
    with _opening:
        system = system_of(url.partition("://")[0].lower(), writes=writes)
    return system, system._strip_protocol(url)


def entries(system: Any, prefix: str, *, recursive: bool) -> dict[str, dict[str, Any]]:
    if recursive:
        found: dict[str, dict[str, Any]] = system.find(prefix, detail=True)
        return found
    return {facts["name"]: facts for facts in system.ls(prefix.rstrip("/") + "/", detail=True)}


def read_many(paths: Sequence[str], most: int | None) -> list[tuple[str, bytes]]:
    """Return the contents, or the first `most` bytes, of what could be read."""
    system, _ = opened(paths[0])
    names = [system._strip_protocol(path) for path in paths]
    start = None if most is None else 0
    read = system.cat_ranges(names, [start] * len(names), [most] * len(names), on_error="return")
    return [
        (path, bytes(content))
        for path, content in zip(paths, read, strict=True)
        if isinstance(content, bytes | bytearray)
    ]


def state_of(url: str, facts: dict[str, Any]) -> State:
    """Return bytes and a number for the ETag, or what comes next to it, in a listing's entry."""
    mark = next((str(facts[name]) for name in MARKS if facts.get(name)), url)
    return int(facts.get("size") or 0), mark_of(mark)
