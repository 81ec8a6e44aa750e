"""Models from a folder or from the Hugging Face hub.

In: a path or a hub ID. Out: a folder that holds the whole model. What is being downloaded is
noted in the folder first, so that a download that broke off is known as such and goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from sdft.errors import EnvironmentFault, UserError
from sdft.events import Emit, Notice, StageFinished, StageProgress, StageStarted
from sdft.files import read_text, require_space, write_json
from sdft.labelers.download import RemoteFile, download
from sdft.units import format_bytes

NOTE = ".sdft-model.json"
"""In the model's folder: where it comes from, and each file with its size."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?:/[\w./-]+)?")

_OFFLINE_FIX = (
    "download the repository's files on a machine with a network, copy the folder here and name it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModel:
    """What is to be downloaded."""

    repo_id: str
    revision: str
    licence: str
    files: dict[str, RemoteFile]
    """By the path in the repository."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())


def find_model(
    model: str,
    *,
    model_dir: Path,
    patterns: Sequence[str],
    force_download: bool = False,
    emit: Emit,
) -> Path:
    """Return the folder (or file) of a model, downloading it the first time.

    `model` is a path, or a hub ID such as `owner/repository` or `owner/repository/folder`.
    A download goes to `model_dir`/<owner>_<repository>.

    Raises: UserError for what is neither; EnvironmentFault where the hub cannot be reached or
        does not give the model.
    """
    if Path(model).exists():
        return Path(model)
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise UserError(
            what="neither a folder or file that exists nor a hub ID",
            where=model,
            fix="a hub ID looks like owner/repository",
            key="no_labeler_here",
        )
    owner, repository, *inner = model.split("/")
    folder = model_dir / f"{owner}_{repository}"
    if force_download or not is_whole(folder):
        try:
            remote = _ask_hub(f"{owner}/{repository}", "/".join(inner), patterns)
        except EnvironmentFault:
            if force_download or not _came_otherwise(folder.joinpath(*inner), patterns):
                raise
            message = f"{folder} is used as it is; the hub cannot be reached to check it"
            emit(Notice(severity="warning", topic="download", message=message))
        else:
            _download(remote, folder, force_download, emit)
    return folder.joinpath(*inner)


def is_whole(folder: Path) -> bool:
    """Tell whether every file that the folder's note names is there with its size."""
    try:
        note = json.loads(read_text(folder / NOTE))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == num_bytes
        for name, num_bytes in note["files"].items()
    )


def _came_otherwise(folder: Path, patterns: Sequence[str]) -> bool:
    """Tell whether another program, or a person, put a model here: sd-scripts has this folder."""
    if (folder / NOTE).exists() or not folder.is_dir():
        return False
    return any(fnmatch(path.name, pattern) for path in folder.iterdir() for pattern in patterns)


def _ask_hub(repo_id: str, inner: str, patterns: Sequence[str]) -> RemoteModel:
    from huggingface_hub import HfApi, hf_hub_url

    with _hub_errors(repo_id):
        found = HfApi().model_info(repo_id, files_metadata=True)
    prefix = f"{inner}/" if inner else ""
    files = {
        one.rfilename: RemoteFile(
            url=hf_hub_url(repo_id, one.rfilename, revision=found.sha),
            num_bytes=int(one.size or 0),
            sha256=one.lfs.sha256 if one.lfs else None,
            version=str(found.sha),
        )
        for one in found.siblings or ()
        if one.rfilename.startswith(prefix)
        and any(fnmatch(one.rfilename.removeprefix(prefix), pattern) for pattern in patterns)
    }
    if not files:
        raise UserError(
            what=f"nothing in it can be used here (looked for {', '.join(patterns)})",
            where=f"{repo_id}/{inner}".rstrip("/"),
            fix="check the repository's page for where its ONNX or transformers files are",
        )
    card: Any = found.card_data
    return RemoteModel(
        repo_id=repo_id,
        revision=str(found.sha),
        licence=str((card.get("license") if card else None) or "not stated"),
        files=files,
    )


def _download(remote: RemoteModel, folder: Path, force: bool, emit: Emit) -> None:
    missing = {
        name: file
        for name, file in remote.files.items()
        if force or _size_of(folder / name) != file.num_bytes
    }
    to_come = sum(file.num_bytes for file in missing.values())
    message = (
        f"downloading {remote.repo_id}: {len(remote.files)} files, {format_bytes(remote.num_bytes)}"
        f" ({format_bytes(to_come)} of them to come), licence {remote.licence}, to {folder}"
    )
    emit(Notice(severity="info", topic="download", message=message))
    require_space(folder, to_come, f"the model {remote.repo_id}")
    sizes = {name: file.num_bytes for name, file in remote.files.items()}
    note = {"repository": remote.repo_id, "revision": remote.revision, "files": sizes}
    write_json(folder / NOTE, note)
    stage, started_s, done = f"downloading {remote.repo_id}", time.monotonic(), 0
    emit(StageStarted(stage=stage, total=to_come // 10**6, unit="MB"))
    # The login of `hf auth login`, where there is one. The module does not declare its names.
    headers = import_module("huggingface_hub.utils").build_hf_headers()
    with _hub_errors(remote.repo_id):
        for name, file in missing.items():
            before = done

            def received(num_bytes: int, before: int = before) -> None:
                emit(StageProgress(stage=stage, done=(before + num_bytes) // 10**6))

            download(file, folder / name, headers=headers, received=received)
            done += file.num_bytes
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=stage, done=done // 10**6, duration_s=duration_s))


def _size_of(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


@contextlib.contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what the hub's client raises into words."""
    from huggingface_hub import errors

    # The client's own base of all errors; which HTTP library it is differs between versions.
    connection_error: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.GatedRepoError as error:
        raise EnvironmentFault(
            what="the owner gives this model only to people who agreed to its terms",
            where=repo_id,
            fix="agree on the model's page, then log in: hf auth login",
            key="model_is_gated",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            what="the hub has no such public model",
            where=repo_id,
            fix="check the spelling; for a private one log in first: hf auth login",
            key="hub_has_no_such_model",
        ) from error
    except HTTPError as error:
        raise EnvironmentFault(
            what=f"the hub does not give a file: {error}", where=repo_id, fix=_OFFLINE_FIX
        ) from error
    except (connection_error, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EnvironmentFault(
            what=f"the hub cannot be reached: {reason}",
            where=repo_id,
            fix=_OFFLINE_FIX,
            key="hub_unreachable",
            values={"reason": reason},
        ) from error
