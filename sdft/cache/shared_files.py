"""A folder of small files, such as the indexes of tar shards, shared between machines.

In: a folder here, a URL. Out: the files of others in it; after the block, its new files there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sdft.dataset.drivers import entries, opened, with_retries
from sdft.events import Emit, Notice
from sdft.files import PART_MARK, make_folder, whole_file

FILES_AT_ONCE = 8

TOPIC = "cache"

_Note = Callable[[str], None]


@contextlib.contextmanager
def shared_files(folder: Path, url: str | None, emit: Emit) -> Iterator[None]:
    """Share a folder's files; without a URL with nobody. What goes wrong is said."""
    if url is None:
        yield
        return

    def note(text: str) -> None:
        emit(Notice(severity="warning", topic=TOPIC, message=text))

    try:
        _fetch(folder, url, note)
    except OSError as error:
        note(f"what other machines know of tar shards cannot be read ({error.strerror}): {url}")
    before = _states(folder)
    yield
    now = _states(folder)
    try:
        for path in sorted(path for path, state in now.items() if before.get(path) != state):
            _send(path, f"{url}/{path.name}", note)
    except OSError as error:
        what = "what is known of tar shards cannot be told to other machines"
        note(f"{what} ({error.strerror}): {url}")


def _fetch(folder: Path, url: str, note: _Note) -> None:
    system, prefix = opened(url)
    try:
        found = with_retries(lambda: entries(system, prefix, recursive=True), url, note)
    except FileNotFoundError:
        return
    names = {name.rpartition("/")[2]: name for name in found}
    missing = [name for name in sorted(names) if name and not (folder / name).exists()]
    make_folder(folder)

    def fetch(name: str) -> None:
        with whole_file(folder / name) as part:
            with_retries(lambda: system.get_file(names[name], str(part)), f"{url}/{name}", note)

    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="shared") as pool:
        list(pool.map(fetch, missing))


def _send(path: Path, url: str, note: _Note) -> None:
    system, name = opened(url, writes=True)
    with_retries(lambda: system.put_file(str(path), name), url, note, done="written")


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    if not folder.is_dir():
        return {}
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if PART_MARK not in path.name
    }
