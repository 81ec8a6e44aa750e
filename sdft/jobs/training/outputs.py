"""Where a run's files end up: in their folder, or from there in an object store.

In: files and folders that are whole on this machine's disk. Out: the same where `output_dir` says.
Here: the folder itself, where nothing is left to do. `stored_outputs` has the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdft.config.folders import cache_folder, output_folder
from sdft.config.load import Config
from sdft.errors import UserError
from sdft.events import Emit
from sdft.rundir import RunDir
from sdft.urls import UrlPath


class Outputs:
    """`output_dir` is a folder: what is whole there is saved."""

    def saved(self, path: Path, then: Callable[[], None]) -> None:
        """Hear that a file or folder is whole; `then` is called when it counts as saved."""
        then()

    def shown(self, path: Path) -> Path:
        """Return where a file will be found."""
        return path

    def exists(self, path: str) -> bool:
        """Tell whether a checkpoint is there."""
        return Path(path).exists()

    def removed(self, path: Path) -> bool:
        """Hear that a file or folder was removed here; return whether it was elsewhere too."""
        return False

    def drop_rolling_states(self, before_step: int | None = None) -> None:
        """Remove the states that nobody asked for, those of a step and later kept."""

    def require_free(self) -> None:
        """Check that files may be moved aside for a new run.

        Raises: UserError.
        """

    def pull(self, *, with_state: bool) -> None:
        """Bring here what another machine left of this run, with its newest state or without."""

    def begin(self, state: Path | None) -> None:
        """Hear that the run begins, and from which state.

        Raises: EnvironmentFault.
        """

    def finish(self) -> None:
        """Return when all is saved.

        Raises: EnvironmentFault.
        """

    def end(self) -> None:
        """Bring up to date what tells of the run, whatever became of it."""


def outputs_of(config: Config, run: RunDir, emit: Emit) -> Outputs:
    """Return where the results of a config go.

    Raises: UserError where they cannot go there.
    """
    output_dir = config.training.output_dir
    if isinstance(output_dir, UrlPath) and config.training.huggingface_repo_id is not None:
        raise UserError(
            what="what goes to an object store is not sent to a Hugging Face repository too",
            where="output_dir, huggingface_repo_id",
            fix="give output_dir a folder, or leave huggingface_repo_id out",
        )
    if not isinstance(output_dir, UrlPath):
        return Outputs()
    from sdft.jobs.training.stored_outputs import StoredOutputs

    return StoredOutputs(url=str(output_dir), folder=output_folder(config), run=run, emit=emit)


def fetched_state(config: Config, run: RunDir, url: str, emit: Emit) -> Path:
    """Return the folder of a state that was given as a URL, fetched unless it is of this run and
    here already.

    Raises: UserError where there is none; EnvironmentFault.
    """
    from sdft.jobs.training.stored_states import fetch_named_state

    states, _, name = url.rstrip("/").rpartition("/")
    if states == f"{config.training.output_dir}/{run.path.name}/states":
        folder = run.states / name
        return folder if folder.exists() else fetch_named_state(url, folder, emit)
    return fetch_named_state(url, cache_folder(config) / "outputs" / "fetched" / name, emit)
