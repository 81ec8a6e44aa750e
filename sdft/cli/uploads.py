"""From settings to the uploads of a run."""

from __future__ import annotations

from sdft.config.training import TrainingSettings
from sdft.views.uploads import MODEL, Uploads, UploadWishes


def uploads_of(settings: TrainingSettings) -> Uploads:
    """Return what sends a run's files where the settings ask for it; else it sends nothing."""
    if settings.huggingface_repo_id is None:
        return Uploads(None)
    return Uploads(
        UploadWishes(
            repo_id=settings.huggingface_repo_id,
            repo_type=settings.huggingface_repo_type or MODEL,
            path_in_repo=settings.huggingface_path_in_repo or "",
            is_public=settings.huggingface_repo_visibility == "public",
            states=settings.save_state_to_huggingface,
        )
    )
