"""What `sdft caption` and `sdft tag` have in common: plan, run, sum up.

In: images, an opened labeler, a sink. Out: a LabelResult. Images whose words are there already,
by the same settings or by a person's hand, are not looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdft.dataset.image_list import ListedImage, list_images
from sdft.errors import DataError, Interrupted, Problem, SdftError, StoppedResumable, UserError
from sdft.events import Emit, ItemRejected, Notice
from sdft.files import PART_MARK, remove, unfinished_in
from sdft.jobs.label_together import Open, label_together
from sdft.jobs.training.stopping import INTERRUPTED, StopRequest
from sdft.labelers.runner import Labelled, Task, label_images
from sdft.labelers.sinks import FINISHED, KEPT, Sink, TextFiles
from sdft.processes import own_place

BYTES_READ = 1 << 16
"""A model file's name, its size and so many bytes tell it from another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelResult:
    """What became of the images."""

    images: int
    labelled: int
    finished: int
    """Had their words from an earlier run with the same settings."""
    kept: int
    """Have words that a person wrote; nothing was done to them."""
    rejected: tuple[Problem, ...]
    """Could not be read, or share a stem with another image."""
    model: str
    batch_size: int | None
    """None where there was nothing to do."""
    images_per_s: float
    output: str
    """The table, or the extension of the files beside the images."""
    tags: tuple[tuple[str, int], ...] = ()
    """How many images have each tag, where this was asked for."""

    def as_json(self) -> dict[str, Any]:
        record = asdict(self)
        record["problems"] = record.pop("rejected")
        record["rejected"] = len(self.rejected)
        record["tags"] = dict(self.tags)
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    todo: tuple[Task, ...]
    finished: tuple[Task, ...]
    kept: int
    rejected: tuple[Problem, ...]


def plan_tasks(images: Sequence[ListedImage], sink: Sink, emit: Emit) -> Plan:
    """Decide for each image whether there is anything to do."""
    todo: list[Task] = []
    finished: list[Task] = []
    rejected: list[Problem] = []
    num_kept = 0
    first_of: dict[Path, Path] = {}
    beside = isinstance(sink, TextFiles)
    for image in images:
        task = Task(path=image.path, key=image.key, place=image.place if image.in_shard else None)
        first = first_of.setdefault(image.path.with_suffix(""), image.path)
        if beside and first is not image.path:
            what = f"would write over the words of {first.name}, which has the same stem"
            rejected.append(Problem(what, str(image.path), "rename one of them"))
            continue
        try:
            state = sink.state(task)
        except DataError as error:
            rejected.extend(error.problems)
            continue
        if state == FINISHED:
            finished.append(task)
        elif state == KEPT:
            num_kept += 1
        else:
            todo.append(task)
    for problem in rejected:
        emit(ItemRejected(path=problem.where, reason=problem.what))
    if isinstance(sink, TextFiles):
        _sweep({sink.file_of(task) for task in todo})
    return Plan(todo=tuple(todo), finished=tuple(finished), kept=num_kept, rejected=tuple(rejected))


def listed_images(
    patterns: Sequence[str], *, recursive: bool, to_table: bool, emit: Emit
) -> tuple[ListedImage, ...]:
    """Return the images of a command line.

    Raises: what `list_images` raises; UserError where their words have nowhere to go.
    """

    def note(problem: Problem) -> None:
        emit(Notice(severity="warning", topic="shards", message=str(problem)))

    images = list_images(patterns, recursive=recursive, note=note)
    packed = next((image for image in images if image.in_shard), None)
    if packed is not None and not to_table:
        raise UserError(
            what="nothing can be written beside images in tar shards",
            where=str(packed.root),
            fix="--output_path words.json writes one file that training takes as metadata_file",
        )
    return images


def _sweep(files: set[Path]) -> None:
    """Remove what a killed run left unfinished of the files that are to be written."""
    for folder in {file.parent for file in files}:
        for left in unfinished_in(folder):
            if left.with_name(left.name.partition(PART_MARK)[0]) in files:
                remove(left)


def run_labelling(
    images: Sequence[ListedImage],
    open_labeler: Open,
    *,
    sink: Sink,
    model: str,
    output: str,
    stage: str,
    batch_size: int | None,
    num_workers: int | None,
    num_processes: int = 1,
    on_cpu: bool = False,
    count_tags: bool = False,
    emit: Emit,
) -> LabelResult:
    """Label what is not labelled yet. The model is opened only where there is something to do.

    `on_cpu` says that no process needs a GPU of its own.

    Raises: Interrupted and StoppedResumable where it was asked to stop; the same command goes on.
        DataError where not one image could be read; UserError where somebody else has started
        several of this command.
    """
    if own_place().size > 1:
        raise UserError(
            what="several processes were started, and each would label every image",
            fix="start the command once, with --num_processes; on several machines give each its"
            " own folders",
        )
    plan = plan_tasks(images, sink, emit)
    ran: Labelled | None = None
    counts: dict[str, int] = {}
    if plan.todo:
        ran = _label(
            plan.todo,
            open_labeler,
            num_processes=min(num_processes, len(plan.todo)),
            on_cpu=on_cpu,
            model=model,
            write=sink.write,
            stage=stage,
            batch_size=batch_size,
            num_workers=num_workers,
            emit=emit,
        )
        if ran.stopped is not None:
            raise _stopped(ran, len(plan.todo))
    unread = {path for path, _ in ran.rejected} if ran else set()
    if ran is not None and not ran.num_done and not plan.finished:
        raise DataError(problems=[Problem(why, str(path)) for path, why in ran.rejected])
    sink.finish()
    if count_tags:
        for task in (*plan.finished, *(task for task in plan.todo if task.path not in unread)):
            for tag in sink.words_of(task):
                counts[tag] = counts.get(tag, 0) + 1
    return LabelResult(
        images=len(images),
        labelled=ran.num_done if ran else 0,
        finished=len(plan.finished),
        kept=plan.kept,
        rejected=(
            *plan.rejected,
            *(Problem(why, str(path)) for path, why in (ran.rejected if ran else ())),
        ),
        model=model,
        batch_size=ran.batch_size if ran else None,
        images_per_s=round(ran.images_per_s, 3) if ran else 0.0,
        output=output,
        tags=tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))),
    )


def _label(
    tasks: Sequence[Task],
    open_labeler: Open,
    *,
    num_processes: int,
    on_cpu: bool,
    model: str,
    emit: Emit,
    **how: Any,
) -> Labelled:
    """Label here, or by several processes; `how` is for either way."""

    def opened(title: str, note: str) -> None:
        if note:
            emit(Notice(severity="warning", topic="fallback", message=note))
        emit(Notice(severity="info", topic="model", message=f"{title}: {model}"))

    if num_processes == 1:
        labeler, note = open_labeler()
        opened(labeler.title, note)
        with StopRequest() as stop_request:
            return label_images(tasks, labeler, stop=stop_request, emit=emit, **how)
    with StopRequest() as stop_request:
        return label_together(
            tasks,
            open_labeler,
            num_processes=num_processes,
            on_cpu=on_cpu,
            opened=opened,
            stop=stop_request,
            emit=emit,
            **how,
        )


def settings_digest(files: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """Return a digest of all that decides the words: the model's files and the settings."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(files):
        with path.open("rb") as file:
            head = file.read(BYTES_READ)
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(hashlib.blake2b(head, digest_size=16).digest())
    digest.update(json.dumps(settings, sort_keys=True).encode("ascii"))
    return digest.hexdigest()


def _stopped(ran: Labelled, num_todo: int) -> SdftError:
    what = f"stopped ({ran.stopped}) after {ran.num_done} of {num_todo} images"
    fix = "what is done is written; the same command goes on from here"
    kind = Interrupted if ran.stopped == INTERRUPTED else StoppedResumable
    return kind(what=what, fix=fix)
