"""`sdft words`: what the text encoder will read in one epoch, use by use, in training's order.

In: a Config and an epoch. Out: a row for each use, with its tokens and what is cut off. No pixels
are read, and no torch: the words are a pure function of seed, epoch and image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdft.config.load import Config
from sdft.config.training import TrainingSettings
from sdft.dataset.captions import words_of
from sdft.dataset.records import Placement, Size, WordRules
from sdft.errors import UserError
from sdft.events import Emit, Notice
from sdft.formats.caption_reader import CaptionReader
from sdft.formats.clip_tokens import ClipTokenizer
from sdft.jobs.sources import plan_dataset, word_rules
from sdft.streams import Address
from sdft.train.sampler import Group, Order, Step, Use

SEED_SHOWN = 0
"""Where the config leaves the seed open; a run then draws its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsRow:
    """One use of one image."""

    step: int
    """The optimizer update that it belongs to, from 1."""
    path: str
    repeat: int
    words: str
    """As the text encoder is given them, weights in brackets included."""
    tokens: int
    """Of all words, read or not."""
    cut: str
    """The end of the words that is not read; empty where all is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsResult:
    """The words of an epoch."""

    epoch: int
    seed: int
    max_token_length: int
    uses: int
    """In the whole epoch, shown or not."""
    cut: int
    """Uses whose words are longer than what is read."""
    empty: int
    """Uses without words."""
    longest: int
    """Tokens."""
    rows: tuple[WordsRow, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run_words(
    config: Config, *, epoch: int, only_cut: bool, limit: int | None, emit: Emit
) -> WordsResult:
    """Return what will be read in an epoch, counted from 1.

    `only_cut` keeps the uses that lose words, `limit` the first so many; the counts are of all.

    Raises: DataError; UserError where the run has no such epoch.
    """
    settings = config.training
    planned = plan_dataset(config, emit=emit)
    placements = planned.plan.placements
    seed = SEED_SHOWN if settings.seed is None else settings.seed
    order = Order(
        groups=_groups(placements),
        effective_batch=[
            size * settings.gradient_accumulation_steps for size in planned.batch_sizes
        ],
        seed=seed,
        partial_batches=settings.partial_batches,
    )
    total_steps = _total_steps(settings, order)
    _require_epoch(epoch, order, total_steps)
    _tell_what_differs(config, emit)
    reader = CaptionReader(
        # What fills a chunk has no part in the words.
        tokenizer=ClipTokenizer("eos"),
        max_token_length=settings.max_token_length,
        weighted=settings.weighted_captions,
        cut_at_commas=settings.cut_at_commas,
    )
    rules = word_rules(config.datasets)
    rows: list[WordsRow] = []
    uses = cut = empty = longest = 0
    for number, step, use in _uses(order, epoch, total_steps):
        row = _row(number, step, use, placements, rules, reader, seed, total_steps)
        uses += 1
        cut += bool(row.cut)
        empty += not row.words.strip()
        longest = max(longest, row.tokens)
        if (row.cut or not only_cut) and (limit is None or len(rows) < limit):
            rows.append(row)
    return WordsResult(
        epoch=epoch,
        seed=seed,
        max_token_length=settings.max_token_length,
        uses=uses,
        cut=cut,
        empty=empty,
        longest=longest,
        rows=tuple(rows),
    )


def _groups(placements: Sequence[Placement]) -> tuple[Group, ...]:
    members: dict[tuple[int, Size], tuple[list[int], list[int]]] = {}
    for number, placement in enumerate(placements):
        key = (placement.item.dataset, placement.bucket)
        numbers, repeats = members.setdefault(key, ([], []))
        numbers.append(number)
        repeats.append(placement.item.num_repeats)
    return tuple(
        Group(dataset=dataset, bucket=bucket, placements=numbers, repeats=repeats)
        for (dataset, bucket), (numbers, repeats) in sorted(members.items())
    )


def _total_steps(settings: TrainingSettings, order: Order) -> int:
    if settings.max_train_epochs is not None:
        return order.steps_through(settings.max_train_epochs)
    return settings.max_train_steps


def _require_epoch(epoch: int, order: Order, total_steps: int) -> None:
    last = order.epochs_for(total_steps)
    if not 1 <= epoch <= last:
        raise UserError(
            what=f"the run has epochs 1 to {last}",
            where=f"--epoch {epoch}",
            fix="raise max_train_steps or max_train_epochs to look further",
        )


def _tell_what_differs(config: Config, emit: Emit) -> None:
    """Say why a run may read other words than those that are shown."""
    if config.training.seed is None:
        message = f"no seed is set: shown for seed {SEED_SHOWN}; a run draws its own"
        emit(Notice(severity="warning", topic="words", message=message))
    if any(dataset.validation_split for dataset in config.datasets):
        message = "images that a run holds out for validation are shown too, so steps may differ"
        emit(Notice(severity="info", topic="words", message=message))


def _uses(order: Order, epoch: int, total_steps: int) -> Iterator[tuple[int, Step, Use]]:
    """Yield each use with the number of updates done before its own."""
    before = order.steps_through(epoch - 1)
    steps = order.epoch(epoch).between(0, total_steps - before)
    for position, step in enumerate(steps):
        for use in step.uses:
            yield before + position, step, use


def _row(
    number: int,
    step: Step,
    use: Use,
    placements: Sequence[Placement],
    rules: dict[tuple[int, int], WordRules],
    reader: CaptionReader,
    seed: int,
    total_steps: int,
) -> WordsRow:
    item = placements[use.placement].item
    address = Address(
        seed=seed,
        epoch=use.epoch,
        dataset=step.dataset,
        subset=item.subset,
        key=item.key,
        repeat=use.repeat,
    )
    words = words_of(item.caption, rules[item.dataset, item.subset], address, number, total_steps)
    read = reader.read(words)
    return WordsRow(
        step=number + 1,
        path=_shown(item.path),
        repeat=use.repeat,
        words=words,
        tokens=read.num_tokens,
        cut=read.cut_text,
    )


def _shown(path: Path) -> str:
    """Return a path from the current folder where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
