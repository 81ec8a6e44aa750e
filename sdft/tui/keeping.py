"""What outlives the wizard in the person's own folder: unsaved drafts and the list of projects.

Honours XDG_STATE_HOME; on Windows it is below the local application data.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from sdft.errors import EnvironmentFault
from sdft.files import remove, write_json
from sdft.tui.draft import CONFIG, DATASET, Draft

NUM_RECENT = 20


def state_folder() -> Path:
    return user_state_path("sdft", appauthor=False) / "wizard"


class Keeping:
    """Reads and writes small files; a folder that cannot be written keeps nobody from working."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_folder()
        self.problem = ""
        """Why nothing is kept, if so."""

    def scratch(self, draft: Draft) -> Path:
        """Return where this project's passing files go."""
        return self.folder / "scratch" / _key(draft)

    def keep(self, draft: Draft) -> None:
        """Keep what is not saved; forget it where everything is."""
        if not draft.is_changed:
            self.forget(draft)
            return
        texts = {str(file.path): file.text for file in draft.files if file.is_changed}
        self._write(self._file(draft), {"texts": texts})

    def kept(self, draft: Draft) -> Draft | None:
        """Return the draft with what a wizard that was cut off left for it, if that differs."""
        texts = _read(self._file(draft)).get("texts")
        if not isinstance(texts, dict):
            return None
        found = draft
        for role in (DATASET, CONFIG):
            text = texts.get(str(draft.file(role).path))
            if isinstance(text, str):
                found = found.with_text(role, text)
        return found if found != draft else None

    def forget(self, draft: Draft) -> None:
        try:
            remove(self._file(draft))
        except OSError as error:
            self.problem = str(error)

    def recent(self) -> list[Path]:
        """Return the projects' config files that are still there, the latest first."""
        paths = _read(self.folder / "recent.json").get("paths")
        known = [Path(path) for path in paths if isinstance(path, str)] if paths else []
        return [path for path in known if path.is_file()]

    def add_recent(self, draft: Draft) -> None:
        path = draft.config.path
        others = [str(known) for known in self.recent() if known != path]
        self._write(self.folder / "recent.json", {"paths": [str(path), *others][:NUM_RECENT]})

    def _file(self, draft: Draft) -> Path:
        return self.folder / "drafts" / f"{_key(draft)}.json"

    def _write(self, path: Path, value: dict[str, Any]) -> None:
        try:
            write_json(path, value)
        except EnvironmentFault as error:
            self.problem = str(error)


def _key(draft: Draft) -> str:
    return blake2b(
        str(draft.config.path).encode("utf-8", "surrogateescape"), digest_size=8
    ).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
