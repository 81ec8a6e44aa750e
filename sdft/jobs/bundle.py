"""`sdft doctor --bundle RUN`: what a bug report needs, in one .zip, with nothing private in it.

In: a run folder. Out: a .zip of its record, cleaned; no pictures, no weights, no captions.
"""

from __future__ import annotations

import json
import os
import tomllib
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft.errors import UserError
from sdft.events import Emit
from sdft.files import whole_file
from sdft.jobs.doctor import run_doctor
from sdft.jobs.scrubbing import Scrubber
from sdft.rundir import RunDir

NUM_FIRST_LINES = 2_000
NUM_LAST_LINES = 20_000
"""Of a long record its start and its end are packed, with a line that says what is left out."""

MAX_FILE_BYTES = 4 << 20
MAX_LINE_CHARACTERS = 65_536

README = """This file was made by `sdft doctor --bundle` to be sent to somebody who helps.

It holds the record of one training run: settings, events, log, the machine, what became of the
images. Secrets, folders, names of images, prompts, user and host were replaced by neutral names,
the same name for the same thing everywhere. It holds no pictures, captions or weights.
Look through it before you send it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleResult:
    """What was packed."""

    bundle: Path
    files: tuple[str, ...]
    size_bytes: int

    def as_json(self) -> dict[str, object]:
        return {
            "bundle": str(self.bundle),
            "files": list(self.files),
            "size_bytes": self.size_bytes,
            "problems": [],
        }


def run_bundle(
    run: RunDir,
    out: Path,
    *,
    emit: Emit,
    with_doctor: bool = True,
    environment: Mapping[str, str] = os.environ,
) -> BundleResult:
    """Pack the record of a run into `out`.

    `with_doctor` adds what `sdft doctor` says of this machine, which takes some seconds.

    Raises: UserError where there is no run; EnvironmentFault where `out` cannot be written.
    """
    if not run.path.is_dir():
        raise UserError(what="no such run", where=str(run.path))
    scrubber = Scrubber(environment)
    _learn_paths(run, scrubber)
    contents = dict(_files(run, scrubber))
    if with_doctor:
        found = scrubber.value(run_doctor(run.path, emit=emit).as_json())
        contents["doctor.json"] = json.dumps(found, indent=2)
    with whole_file(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"README.txt": README, **contents}.items():
            # A fixed date: the time of packing is nobody's business.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    return BundleResult(bundle=out, files=("README.txt", *contents), size_bytes=out.stat().st_size)


def _files(run: RunDir, scrubber: Scrubber) -> Iterator[tuple[str, str]]:
    """Give the name and the cleaned text of each file that is there."""
    settings = _toml(run.config_file)
    if settings is not None:
        yield "config.json", json.dumps(scrubber.value(settings), indent=2)
    for path in (run.environment_file, run.status_file, run.path / "validation.json"):
        content = _json(path)
        if content is not None:
            yield path.name, json.dumps(scrubber.value(content), indent=2)
    for path in (run.events_file, run.fates_file):
        if path.exists():
            yield path.name, "".join(_json_lines(path, scrubber))
    if run.log_file.exists():
        yield run.log_file.name, "".join(scrubber.text(line) for line in _ends_of(run.log_file))


def _learn_paths(run: RunDir, scrubber: Scrubber) -> None:
    """Note the paths that the record names, so that they are found whole wherever they stand."""
    scrubber.learn(str(run.path.absolute()))
    for value in _texts(_toml(run.config_file) or {}):
        if "/" in value or "\\" in value:
            scrubber.learn(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _json_lines(path: Path, scrubber: Scrubber) -> Iterator[str]:
    for line in _ends_of(path):
        record = _object(line)
        if record:
            yield json.dumps(scrubber.value(record)) + "\n"
        elif line.startswith("..."):
            yield line


def _ends_of(path: Path) -> Iterator[str]:
    """Give the first and the last lines of a file, and between them how many are left out."""
    last: deque[str] = deque(maxlen=NUM_LAST_LINES)
    num_lines = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(MAX_LINE_CHARACTERS):
                num_lines += 1
                if num_lines <= NUM_FIRST_LINES:
                    yield line
                else:
                    last.append(line)
    except OSError:
        return
    left_out = num_lines - min(num_lines, NUM_FIRST_LINES) - len(last)
    if left_out:
        yield f"... {left_out} lines are left out ...\n"
    yield from last


def _object(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (OSError, ValueError, RecursionError):
        return None


def _toml(path: Path) -> Any:
    try:
        return tomllib.loads(_text(path))
    except (OSError, ValueError, RecursionError):
        return None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
