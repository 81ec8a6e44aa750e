"""`sdft caption`: captions for images, by BLIP, GIT or another model of transformers.

In: images, a model, how to generate. Out: caption files beside the images, or one table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from sdft.dataset.word_files import with_dot
from sdft.dataset.write_log import WriteLog
from sdft.errors import UserError
from sdft.events import Emit
from sdft.jobs.labelling import LabelResult, listed_images, run_labelling, settings_digest
from sdft.labelers.captioners import (
    CAPTIONERS,
    DEFAULT_MODELS,
    HUB_FILES,
    kind_of,
    open_captioner,
)
from sdft.labelers.hub import NOTE, find_model
from sdft.labelers.records import Labeler
from sdft.labelers.sinks import Sink, Table, TextFiles
from sdft.processes import require_all_started

DEFAULT_MODEL_DIR = Path("caption_model")


def run_caption(
    patterns: Sequence[str],
    *,
    model: str | None = None,
    model_dir: Path = DEFAULT_MODEL_DIR,
    captioner: str = "auto",
    force_download: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    num_workers: int | None = None,
    num_processes: int = 1,
    caption_extension: str = ".caption",
    output_path: Path | None = None,
    recursive: bool = False,
    overwrite: bool = False,
    generation: Mapping[str, Any],
    command_line: str = "sdft caption",
    emit: Emit,
) -> LabelResult:
    """Caption every image that has no caption of a person's own yet.

    `generation` has the fields of CaptionChoice; it is made into one only where there is
    something to do, because that imports torch.

    Raises: UserError, DataError, EnvironmentFault before the first image; see run_labelling for
        what comes later.
    """
    require_all_started("caption")
    images = listed_images(
        patterns, recursive=recursive, to_table=output_path is not None, emit=emit
    )
    if captioner != "auto":
        captioner = CAPTIONERS.canonical(captioner)
    model = model or DEFAULT_MODELS.get(captioner, DEFAULT_MODELS["blip"])
    if captioner == "general" and model in DEFAULT_MODELS.values():
        raise UserError(what="the general captioner has no default model", where="--model")
    folder = find_model(
        model,
        model_dir=model_dir,
        patterns=HUB_FILES,
        force_download=force_download,
        emit=emit,
    )
    settings = {**generation, "captioner": captioner}
    digest = settings_digest(_model_files(folder), settings)
    log = WriteLog(line=command_line, settings=digest)
    sink: Sink
    if output_path is not None:
        path = output_path.absolute()
        sink = Table(log=log, path=path, separator=" ", kind="caption", overwrite=overwrite)
    else:
        extension = with_dot(caption_extension)
        sink = TextFiles(log=log, extension=extension, separator=" ", overwrite=overwrite)
    return run_labelling(
        images,
        partial(_open, folder, dict(generation), kind=captioner, device=device),
        sink=sink,
        model=model,
        output=str(output_path or with_dot(caption_extension)),
        stage="captioning",
        batch_size=batch_size,
        num_workers=num_workers,
        num_processes=num_processes,
        on_cpu=device == "cpu",
        emit=emit,
    )


def _open(
    folder: Path, generation: Mapping[str, Any], *, kind: str, device: str
) -> tuple[Labeler, str]:
    from sdft.labelers.captions import CaptionChoice

    return open_captioner(folder, CaptionChoice(**generation), kind=kind, device=device)


def _model_files(folder: Path) -> list[Path]:
    # kind_of says what is wrong with a file that stands in the place of a folder.
    kind_of(folder)
    return [
        file
        for file in folder.iterdir()
        if any(fnmatch(file.name, pattern) for pattern in HUB_FILES) and file.name != NOTE
    ]
