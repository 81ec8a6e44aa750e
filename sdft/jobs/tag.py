"""`sdft tag`: tags for images, by a WD14 tagger or DeepDanbooru.

In: images, a model, what to choose of its answers. Out: tag files beside the images or one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from sdft.dataset.word_files import with_dot
from sdft.dataset.write_log import WriteLog
from sdft.errors import UserError
from sdft.events import Emit
from sdft.jobs.labelling import LabelResult, listed_images, run_labelling, settings_digest
from sdft.labelers.hub import find_model
from sdft.labelers.selection import TagChoice
from sdft.labelers.sinks import Sink, Table, TextFiles
from sdft.labelers.taggers import HUB_FILES, TABLE_FILES, find_model_file, open_tagger
from sdft.processes import require_all_started

DEFAULT_MODEL = "SmilingWolf/wd-v1-4-convnext-tagger-v2"
DEFAULT_MODEL_DIR = Path("wd14_tagger_model")
"""Source of both: reference, section 1.5."""


def run_tag(
    patterns: Sequence[str],
    *,
    choice: TagChoice,
    model: str = DEFAULT_MODEL,
    model_dir: Path = DEFAULT_MODEL_DIR,
    tagger: str = "auto",
    force_download: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    num_workers: int | None = None,
    num_processes: int = 1,
    caption_extension: str = ".txt",
    output_path: Path | None = None,
    recursive: bool = False,
    append_tags: bool = False,
    overwrite: bool = False,
    frequency_tags: bool = False,
    command_line: str = "sdft tag",
    emit: Emit,
) -> LabelResult:
    """Tag every image that has no tags of a person's own yet.

    Raises: UserError, DataError, EnvironmentFault before the first image; see run_labelling for
        what comes later.
    """
    if output_path is not None and append_tags:
        raise UserError(
            what="tags are appended to text files, not to a table",
            where="--append_tags",
            fix="leave out --output_path, or --append_tags",
        )
    require_all_started("tag")
    images = listed_images(
        patterns, recursive=recursive, to_table=output_path is not None, emit=emit
    )
    path = find_model(
        model,
        model_dir=model_dir,
        patterns=HUB_FILES,
        force_download=force_download,
        emit=emit,
    )
    model_file = find_model_file(path)
    settings = {**asdict(choice), "append": append_tags, "tagger": tagger}
    tables = [file for file in model_file.parent.iterdir() if file.name in TABLE_FILES]
    digest = settings_digest([model_file, *tables], settings)
    log = WriteLog(line=command_line, settings=digest)
    sink: Sink
    if output_path is not None:
        sink = Table(
            log=log,
            path=output_path.absolute(),
            separator=choice.caption_separator,
            overwrite=overwrite,
        )
    else:
        sink = TextFiles(
            log=log,
            extension=with_dot(caption_extension),
            separator=choice.caption_separator,
            append=append_tags,
            overwrite=overwrite,
        )
    return run_labelling(
        images,
        partial(open_tagger, path, choice, kind=tagger, device=device),
        sink=sink,
        model=model,
        output=str(output_path or with_dot(caption_extension)),
        stage="tagging",
        batch_size=batch_size,
        num_workers=num_workers,
        num_processes=num_processes,
        on_cpu=device == "cpu",
        count_tags=frequency_tags,
        emit=emit,
    )
