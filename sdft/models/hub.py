"""A model by its ID on the Hugging Face hub, for who has a network or has it in the hub's cache.

In: a path that does not exist. Out: the folder of a downloaded model, where the path is an ID
such as `owner/model`. Nothing here is asked for a path that exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sdft.errors import EnvironmentFault, UserError
from sdft.models.folder import PICKLE_STEMS, WEIGHT_STEMS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CONFIGS = ("model_index.json", "scheduler/scheduler_config.json")
_FILE_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def from_hub(path: Path, what: str) -> Path:
    """Return the folder of a model that the hub, or its cache on this machine, has.

    `what` names what is looked for in messages: `model` or `VAE`.
    Raises: UserError where the path is no ID, or the hub has no such model; EnvironmentFault
        where the hub cannot be reached.
    """
    repo_id = path.as_posix()
    nothing_here = UserError(
        what=f"there is no {what} here",
        where=str(path),
        fix="check the path",
        key="no_model_here",
        values={"what": what},
    )
    # A mistyped path must not be sent over the network, so what could be one is taken for one.
    owner_is_folder = len(path.parts) > 1 and Path(path.parts[0]).is_dir()
    if not _HUB_ID.fullmatch(repo_id) or owner_is_folder or path.suffix in _FILE_ENDINGS:
        raise nothing_here
    # 0.6 s, and only for who uses the hub.
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo_id, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        wanted = wanted_files(HfApi().list_repo_files(repo_id))
        if not wanted:
            raise UserError(
                what="this repository has no model in the diffusers layout",
                where=repo_id,
                fix="download its .safetensors or .ckpt file yourself and give its path",
            )
        return Path(snapshot_download(repo_id, allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise UserError(
            what=f"there is no {what} here, and the hub has no public one of this name",
            where=repo_id,
            fix="check the path; for a private one log in first: hf auth login",
        ) from error
    except OSError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EnvironmentFault(
            what=f"there is no {what} here, and the hub cannot be asked for it: {reason}",
            where=repo_id,
            fix="check the path; or download the model elsewhere and give its path",
        ) from error


def wanted_files(names: Iterable[str]) -> list[str]:
    """Return the files of a repository that a model needs: one form of each network's weights."""
    there = set(names)
    wanted = [name for name in _CONFIGS if name in there]
    for part in WEIGHT_STEMS:
        wanted += _part_files(there, f"{part}/", part)
    # A repository of a VAE alone has no folder for it.
    return wanted or _part_files(there, "", "vae")


def _part_files(there: set[str], folder: str, part: str) -> list[str]:
    stems = ((WEIGHT_STEMS[part], ".safetensors"), (PICKLE_STEMS[part], ".bin"))
    best_first = [
        f"{folder}{stem}{variant}{ending}" for variant in ("", ".fp16") for stem, ending in stems
    ]
    weights = [name for name in best_first if name in there][:1]
    config = f"{folder}config.json"
    return [config, *weights] if weights and config in there else []
