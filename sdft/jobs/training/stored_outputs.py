"""Sends a run's files to an object store, and fetches what another machine left there.

In: files that are whole on this machine's disk. Out: objects under the same names below
`output_dir`. Nothing counts as saved before the store has all of it: a state's manifest is sent
last, so that a state without one is none. What cannot be sent waits, and is tried again with the
next save; an older state goes only when a newer one is there.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sdft.dataset.drivers import opened, with_retries
from sdft.errors import EnvironmentFault, UserError
from sdft.events import Emit, FileRemoved, Notice
from sdft.files import PART_MARK, remove, write_text
from sdft.jobs.training.outputs import Outputs
from sdft.jobs.training.stored_states import (
    fetch_file,
    fetch_state,
    listed,
    states_in,
)
from sdft.rundir import (
    FINISHED,
    KEPT,
    MANIFEST,
    RunDir,
    RunLock,
    is_state_name,
    state_step,
)
from sdft.urls import UrlPath

LAST = (MANIFEST, "model_index.json")
"""Names that say that the rest of their folder is there."""

ID_FILE = "id"
"""In a run folder, here and there: whether both are of one run."""

_NAMES = RunDir(Path())
STATUS_FILE = _NAMES.status_file.name
NOT_SENT = (_NAMES.lock_file.name, _NAMES.control.name, _NAMES.states.name)
"""Of a run folder: what concerns this machine alone, and what is sent when it is whole."""


@dataclass(kw_only=True)
class StoredOutputs(Outputs):
    """`output_dir` is a URL."""

    url: str
    folder: Path
    """What is written here before it is sent."""
    run: RunDir
    emit: Emit
    _waiting: list[tuple[Path, Callable[[], None]]] = field(default_factory=list)
    _sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Size and time of what tells of the run, by name, as it was sent."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """A run that ends in haste may meet the thread that saves."""

    def saved(self, path: Path, then: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.append((path, then))
            self._send_waiting()

    def shown(self, path: Path) -> Path:
        return UrlPath(self._url(path))

    def exists(self, path: str) -> bool:
        system, name = opened(path)
        try:
            return bool(with_retries(lambda: system.exists(name), path, self._note))
        except OSError as error:
            raise self._fault("what is there cannot be read", error) from error

    def removed(self, path: Path) -> bool:
        with self._lock:
            self._waiting = [one for one in self._waiting if one[0] != path]
        return self._remove(self._url(path))

    def drop_rolling_states(self, before_step: int | None = None) -> None:
        try:
            states = states_in(self._listed("states"))
        except OSError as error:
            # What is too old takes room; that is no reason to end a training.
            message = f"older states at {self.url} could not be removed: {error.strerror}"
            self.emit(Notice(severity="warning", topic="outputs", message=message))
            return
        for name, files in states.items():
            if KEPT in files or (before_step is not None and state_step(name) >= before_step):
                continue
            url = f"{self.url}/{self.run.path.name}/states/{name}"
            if self._remove(url):
                self.emit(FileRemoved(path=url))

    def require_free(self) -> None:
        raise UserError(
            what="there is another run of this name, and on an object store nothing is moved aside",
            where=f"{self.url}/{self.run.path.name}",
            fix="go on with it by --resume auto, choose another output_name, or remove it there",
            key="stored_run_in_the_way",
        )

    def pull(self, *, with_state: bool) -> None:
        """Bring here what the store has of this run; what is here of another one is moved aside.

        Raises: EnvironmentFault.
        """
        try:
            there = self._listed("")
            own = _text_of(self.run.path / ID_FILE)
            other = self._text(ID_FILE) if ID_FILE in there else ""
            status = self._text(STATUS_FILE) if STATUS_FILE in there else ""
        except OSError as error:
            raise self._fault("what is there cannot be read", error) from error
        if self.run.path.exists() and own != other:
            # Raises where another process is writing it.
            with RunLock(self.run):
                pass
            for old, new in self.run.move_aside(*self._unsent()):
                message = f"{old} is of another run than {self.url} holds; it is now {new}"
                self.emit(Notice(severity="warning", topic="moved", message=message))
        if not other:
            return
        newer = self._newer_state(there)
        # Another machine may have come to its end, after which there are no states.
        is_done = _is_finished(status) and status != _text_of(self.run.status_file)
        try:
            if newer or is_done or not self.run.status_file.exists():
                for name in sorted(there):
                    if name.partition("/")[0] not in NOT_SENT:
                        self._fetch(name)
            if newer and with_state:
                self._fetch_states(there)
        except OSError as error:
            raise self._fault("what is there cannot be read", error) from error

    def begin(self, state: Path | None) -> None:
        if not (self.run.path / ID_FILE).exists():
            write_text(self.run.path / ID_FILE, secrets.token_hex(16))
        try:
            if state is not None and state.parent == self.run.states:
                there = self._listed("states")
                self._set_later_aside(there, state_step(state.name))
                # It may be whole here only: the process died before it was sent.
                if f"states/{state.name}/{MANIFEST}" not in there:
                    self._send(state)
            self._mirror()
        except OSError as error:
            raise self._fault("nothing can be written there", error) from error
        for path in self._unsent():
            self.saved(path, lambda: None)

    def _unsent(self) -> list[Path]:
        """Return the checkpoints of this run that are here: each goes when it is sent."""
        if not self.folder.exists():
            return []
        name = re.escape(self.run.path.stem)
        # A diffusers folder has no extension.
        ours = re.compile(rf"{name}(-step\d+|-\d{{6}}|-best)?(\.(safetensors|ckpt|pt))?")
        return [path for path in self.folder.iterdir() if ours.fullmatch(path.name)]

    def finish(self) -> None:
        with self._lock:
            self._send_waiting()
        if self._waiting:
            raise EnvironmentFault(
                what="not all could be sent; it is whole on this machine and is sent by the same"
                " command with --resume auto",
                where=", ".join(str(path) for path, _ in self._waiting),
                key="not_all_sent",
            )
        try:
            self._mirror()
        except OSError as error:
            raise self._fault("nothing can be written there", error) from error

    def end(self) -> None:
        try:
            with self._lock:
                self._send_waiting()
                self._mirror()
        except OSError as error:
            message = f"what tells of the run is not up to date at {self.url}: {error.strerror}"
            self.emit(Notice(severity="warning", topic="outputs", message=message))

    def _send_waiting(self) -> None:
        """Send what waits, in order; the caller holds the lock."""
        while self._waiting:
            path, then = self._waiting[0]
            try:
                # A state holds a place in the events, so they have to be there first.
                self._mirror()
                self._send(path)
            except OSError as error:
                message = (
                    f"{path} could not be sent to {self.url} and does not count as saved; it is"
                    f" tried again with the next save: {error.strerror}"
                )
                self.emit(Notice(severity="warning", topic="outputs", message=message))
                return
            self._waiting.pop(0)
            if path.parent == self.folder:
                # Nobody needs a checkpoint here; states are gone on from.
                remove(path)
            then()

    def _send(self, path: Path) -> None:
        """Send a file, or a folder with what says that it is whole last.

        Raises: OSError.
        """
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        for file in sorted(files, key=lambda one: (one.name in LAST, str(one))):
            self._put(file)

    def _put(self, file: Path) -> None:
        url, num_bytes = self._url(file), file.stat().st_size
        system, name = opened(url, writes=True)

        def put() -> None:
            system.put_file(str(file), name)
            there = int(system.info(name)["size"])
            # What tells of the run grows meanwhile.
            if there < num_bytes:
                raise OSError(f"{there} of {num_bytes} bytes arrived")

        with_retries(put, url, self._note, done="written")

    def _mirror(self) -> None:
        """Send what tells of the run and has changed.

        Raises: OSError.
        """
        for file in _telling(self.run.path):
            status = file.stat()
            state = status.st_size, status.st_mtime_ns
            if self._sent.get(str(file)) != state:
                self._put(file)
                self._sent[str(file)] = state

    def _newer_state(self, there: dict[str, dict[str, Any]]) -> bool:
        steps = [state_step(name) for name, files in states_in(there).items() if MANIFEST in files]
        own = [
            state_step(path.name)
            for path in self.run.states.glob("step*")
            if is_state_name(path.name)
        ]
        return max(steps, default=-1) > max(own, default=-1)

    def _fetch_states(self, there: dict[str, dict[str, Any]]) -> None:
        """Bring the newest whole state here; one that comes damaged gives way to an older one.

        Raises: OSError.
        """
        from sdft.train.state import damage

        for name, files in sorted(states_in(there).items(), reverse=True):
            folder = self.run.states / name
            if MANIFEST not in files or folder.exists():
                continue
            problem = fetch_state(
                f"{self.url}/{self.run.path.name}/states/{name}", folder, self._note
            )
            problem = problem or damage(folder)
            if not problem:
                return
            message = f"the state {name} of {self.url} is passed over: {problem}"
            self.emit(Notice(severity="warning", topic="resume", message=message))
            if folder.exists():
                remove(folder)

    def _set_later_aside(self, there: dict[str, dict[str, Any]], step: int) -> None:
        """Rename the states after the one that the run goes on from, the manifest first."""
        taken = {name.split("/")[1] for name in there}
        for name, files in states_in(there).items():
            if state_step(name) <= step:
                continue
            number = 1
            while f"{name}-{number}" in taken:
                number += 1
            base = f"{self.url}/{self.run.path.name}/states"
            for file in sorted(files, key=lambda one: one != MANIFEST):
                self._move(f"{base}/{name}/{file}", f"{base}/{name}-{number}/{file}")
            message = f"{name} comes after the state that the run goes on from: {name}-{number}"
            self.emit(Notice(severity="info", topic="moved", message=message))

    def _move(self, old: str, new: str) -> None:
        system, name = opened(old, writes=True)
        _, new_name = opened(new, writes=True)
        with_retries(lambda: system.mv(name, new_name), old, self._note, done="moved")

    def _remove(self, url: str) -> bool:
        """Remove an object or all below a prefix, the manifest first.

        Returns whether there was any.
        """
        system, name = opened(url, writes=True)
        try:
            found = with_retries(lambda: list(system.find(name)), url, self._note)
            for one in sorted(found, key=lambda file: not file.endswith(f"/{MANIFEST}")):
                with_retries(lambda one=one: system.rm_file(one), url, self._note, done="removed")  # type: ignore[misc]
        except OSError as error:
            # What is too old takes room; that is no reason to end a training.
            message = f"{url} is no longer needed and could not be removed: {error.strerror}"
            self.emit(Notice(severity="warning", topic="outputs", message=message))
            return False
        return bool(found)

    def _listed(self, below: str) -> dict[str, dict[str, Any]]:
        """Return the objects of the run, by their names in its folder.

        Raises: OSError.
        """
        return listed(f"{self.url}/{self.run.path.name}", below, self._note)

    def _text(self, name: str) -> str:
        url = f"{self.url}/{self.run.path.name}/{name}"
        system, path = opened(url)
        return with_retries(lambda: bytes(system.cat_file(path)), url, self._note).decode(
            "ascii", "replace"
        )

    def _fetch(self, name: str) -> None:
        target = self.run.path / PurePosixPath(name)
        fetch_file(f"{self.url}/{self.run.path.name}/{name}", target, self._note)

    def _url(self, path: Path) -> str:
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"

    def _note(self, text: str) -> None:
        self.emit(Notice(severity="warning", topic="outputs", message=text))

    def _fault(self, what: str, error: OSError) -> EnvironmentFault:
        return EnvironmentFault(
            what=f"{what}: {error.strerror or error}",
            where=self.url,
            fix="check the URL, and the credentials that the store's own tools find",
            key="store_unusable",
        )


def _telling(run: Path) -> Iterator[Path]:
    """Give the files of a run folder that tell of it; what says that there is one comes last."""
    files = [
        file
        for one in run.iterdir()
        if one.name not in NOT_SENT
        for file in ([one] if one.is_file() else one.rglob("*"))
        if file.is_file() and PART_MARK not in file.name
    ]
    yield from sorted(files, key=lambda file: (file.name in (STATUS_FILE, ID_FILE), str(file)))


def _is_finished(status: str) -> bool:
    try:
        return bool(json.loads(status)["state"] == FINISHED)
    except (ValueError, KeyError, TypeError):
        return False


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
