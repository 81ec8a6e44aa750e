"""Checkpoints and states, given to a Hugging Face repository while the run goes on.

A listener of events. Files are sent by a thread of its own, one after the other; what fails is
said once a file and the run goes on: the file itself is on disk.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdft.events import CheckpointSaved, Event, Notice, StateSaved

MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadWishes:
    """What the settings ask of uploads."""

    repo_id: str
    repo_type: str = MODEL
    path_in_repo: str = ""
    is_public: bool = False
    states: bool = False


class Uploads:
    """A listener that sends what a run saves; `finish` waits for all of it."""

    def __init__(self, wishes: UploadWishes | None) -> None:
        self._wishes = wishes
        self._waiting: queue.Queue[Path | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._say: Callable[[Event], None] = lambda event: None

    def report_to(self, emit: Callable[[Event], None]) -> None:
        """Name who is told what was sent and what failed."""
        self._say = emit

    def __call__(self, time_s: float, event: Event) -> None:
        wishes = self._wishes
        if wishes is None:
            return
        if isinstance(event, CheckpointSaved) or (isinstance(event, StateSaved) and wishes.states):
            self._send(Path(event.path), wishes)

    def finish(self) -> None:
        """Wait until everything is sent. Not to be called by a listener."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _send(self, path: Path, wishes: UploadWishes) -> None:
        if self._thread is None:
            # A run that is killed is not held back by what is being sent.
            self._thread = threading.Thread(target=self._work, args=(wishes,), daemon=True)
            self._thread.start()
        self._waiting.put(path)

    def _work(self, wishes: UploadWishes) -> None:
        while (path := self._waiting.get()) is not None:
            name = f"{wishes.path_in_repo.strip('/')}/{path.name}".lstrip("/")
            place = f"{wishes.repo_id}/{name}"
            try:
                upload(path, name, wishes)
            except Exception as error:  # noqa: BLE001 - the thread's edge; said, and the run goes on
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                message = f"{path} was not sent to {place}: {reason}"
                self._say(Notice(severity="warning", topic="upload", message=message))
            else:
                self._say(Notice(severity="info", topic="upload", message=f"sent to {place}"))


def upload(path: Path, name: str, wishes: UploadWishes) -> None:
    """Send a file or folder; the repository is made where there is none, private unless public.

    Who sends it is known from HF_TOKEN or from `hf auth login`.
    """
    # Takes 0.3 s.
    from huggingface_hub import HfApi

    hub = HfApi()
    kind = wishes.repo_type
    hub.create_repo(wishes.repo_id, repo_type=kind, private=not wishes.is_public, exist_ok=True)
    if path.is_dir():
        hub.upload_folder(
            folder_path=path, path_in_repo=name, repo_id=wishes.repo_id, repo_type=kind
        )
    else:
        hub.upload_file(
            path_or_fileobj=path, path_in_repo=name, repo_id=wishes.repo_id, repo_type=kind
        )
