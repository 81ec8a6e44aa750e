"""Settings of uploads to a Hugging Face repository."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel

from sdft.config.settings import setting

_REPO_WORDS = "owner/name"


def _owner_and_name(value: str | None) -> str | None:
    if value is None:
        return None
    owner, slash, name = value.partition("/")
    if not (owner and slash and name) or "/" in name or " " in value:
        raise ValueError(f"it must be {_REPO_WORDS}")
    return value


RepoId = Annotated[str | None, AfterValidator(_owner_and_name)]


class HubSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True):
    """The part of the training settings that says what is sent where. HF_TOKEN says who sends."""

    huggingface_repo_id: RepoId = setting(
        None,
        help="Send every checkpoint to this repository, owner/name, while the run goes on.",
        group="uploads",
        decides=False,
        wanted=_REPO_WORDS,
    )
    huggingface_repo_type: Literal["model", "dataset", "space"] | None = setting(
        None, help="Kind of the repository; model if not set.", group="uploads", decides=False
    )
    huggingface_path_in_repo: str | None = setting(
        None, help="Folder within the repository.", group="uploads", decides=False
    )
    huggingface_repo_visibility: Literal["private", "public"] | None = setting(
        None,
        help="Whether a repository that is made is private, the default, or public.",
        group="uploads",
        decides=False,
    )
    save_state_to_huggingface: bool = setting(
        False, help="Send the states too.", group="uploads", decides=False
    )
