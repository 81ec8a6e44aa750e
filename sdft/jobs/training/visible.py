"""Whether every process of a run sees the files that it works with.

In: a Config. Out: nothing, or an error that names the process, its machine and the folder.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from sdft.config.folders import cache_folder, cache_url
from sdft.config.load import Config
from sdft.errors import DataError, Problem
from sdft.files import make_folder, remove
from sdft.jobs.training.team import Team


def require_seen(config: Config, team: Team) -> None:
    """Check that all processes see one and the same cache; that each sees the images is checked
    with its settings.

    Raises: DataError in the main process, SaidElsewhere in the others.
    """
    # A cache in an object store is asked for by each on its own.
    if team.size == 1 or cache_url(config) is not None:
        return
    cache = cache_folder(config)
    mark = team.from_main(lambda: _left_mark(cache))
    problem = Problem(
        what="it sees another cache than process 0",
        where=str(cache),
        fix="set cache_dir to a folder on a disk that all machines share, or to s3:// or gs://",
    )
    try:
        team.require_none([] if mark.exists() else [problem], DataError)
    finally:
        if team.is_main:
            remove(mark)


def require_same_folder(folder: Path, team: Team) -> None:
    """Check that all processes see a folder that the main process sees.

    Raises: as `require_seen`.
    """
    problem = Problem(
        what="it does not see this folder",
        where=str(folder),
        fix="keep output_dir on a disk that all machines share",
    )
    team.require_none([] if folder.is_dir() else [problem], DataError)


def _left_mark(cache: Path) -> Path:
    make_folder(cache)
    mark = cache / f"seen-{secrets.token_hex(8)}"
    mark.touch()
    return mark
