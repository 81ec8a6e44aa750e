"""Which images a run holds out to measure with, and whether they are really others.

In: a planned dataset with its latents, the settings. Out: what is trained on, what is measured,
and a warning where the two show the same pictures.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from sdft.cache.latent_keys import KeyTable, LatentKeys
from sdft.cache.looks import looks_of
from sdft.config.dataset import SubsetSettings
from sdft.config.folders import cache_folder
from sdft.config.load import Config
from sdft.dataset.augment import PictureRules
from sdft.dataset.gathering import plural
from sdft.dataset.lookalikes import Pair, pairs_alike
from sdft.dataset.records import Placement, WordRules
from sdft.dataset.tables import PlacementTable
from sdft.events import Emit, Notice
from sdft.files import write_text
from sdft.jobs.sources import loss_weights, picture_rules, plan_dataset, word_rules
from sdft.jobs.splitting import ranked, split_off
from sdft.jobs.training.data import TrainingData, training_data
from sdft.jobs.training.latents import cached_latents
from sdft.jobs.training.team import ONLY_ONE, Team
from sdft.models.bundle import ModelBundle

NUM_PAIRS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Some placements of a plan, with what belongs to each."""

    placements: Sequence[Placement]
    keys: Sequence[LatentKeys]
    masks: Sequence[str | None]

    def only(self, numbers: Collection[int]) -> Chosen:
        """Return those with these numbers, in the plan's order."""
        order = sorted(numbers)
        return Chosen(
            placements=PlacementTable.of(self.placements).take(order),
            keys=KeyTable.of(self.keys).take(order),
            masks=tuple(self.masks[number] for number in order),
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(placement.item.path for placement in self.placements))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A plan cut in two."""

    train: Chosen
    measured: Chosen | None
    """None where nothing is measured."""
    config: Config
    """Of the measured images: that of the run, or of the validation folder."""
    seed: int
    """Of what is measured beside, and of its noise."""

    @property
    def paths(self) -> frozenset[Path]:
        """Return the run's own images that are held out."""
        if self.measured is None:
            return frozenset()
        return frozenset(self.measured.paths)


def hold_out(
    config: Config,
    everything: Chosen,
    *,
    bundle: ModelBundle,
    accelerator: Accelerator,
    record: Path,
    emit: Emit,
    team: Team = ONLY_ONE,
) -> HeldOut:
    """Take out what is measured, encode the pictures of a validation folder, and say whether the
    two show the same. `record` is where all pairs go that do.

    Raises: DataError where too little is left; what reading a folder of images raises.
    """
    settings = config.training
    seeds = [d.validation_seed for d in config.datasets if d.validation_seed is not None]
    seed = seeds[0] if seeds else 0
    numbers = split_off(
        everything.placements, [one.usable for one in everything.keys], config.datasets
    )
    rest = frozenset(range(len(everything.placements))) - numbers
    train, measured, of = everything, None, config
    if numbers:
        train, measured = everything.only(rest), everything.only(numbers)
    if settings.validation_dir is not None:
        of = folder_config(config, settings.validation_dir)
        measured = _pictures_of_folder(of, bundle, accelerator, emit, team)
    if measured is not None and team.is_main:
        warn_of_overlap(
            measured.paths,
            train.paths,
            cache=cache_folder(config),
            record=record,
            max_workers=settings.max_data_loader_n_workers,
            emit=emit,
        )
    return HeldOut(train=train, measured=measured, config=of, seed=seed)


def _pictures_of_folder(
    config: Config, bundle: ModelBundle, accelerator: Accelerator, emit: Emit, team: Team
) -> Chosen:
    dataset = team.from_main(lambda: plan_dataset(config, emit=emit))
    latents = cached_latents(config, dataset, bundle, accelerator=accelerator, emit=emit, team=team)
    placements = dataset.plan.placements
    return Chosen(placements=placements, keys=latents.keys, masks=(None,) * len(placements))


def plain_words(config: Config) -> dict[tuple[int, int], WordRules]:
    """Return rules by which a caption is read in full and in its own order."""
    return {
        place: replace(
            rules,
            shuffle_caption=False,
            caption_dropout_rate=0.0,
            caption_dropout_every_n_epochs=0,
            caption_tag_dropout_rate=0.0,
            token_warmup_step=0,
        )
        for place, rules in word_rules(config.datasets).items()
    }


def plain_pictures(config: Config) -> dict[tuple[int, int], PictureRules]:
    """Return rules by which an image is the same on each use."""
    return {
        place: PictureRules(interpolation=rules.interpolation)
        for place, rules in picture_rules(config.datasets).items()
    }


def measured_data(chosen: Chosen, config: Config) -> TrainingData:
    """Return images as they are measured: not mirrored, their captions as they stand."""
    return training_data(
        chosen.placements,
        KeyTable.of(chosen.keys).without_flipped(),
        words=plain_words(config),
        pictures=plain_pictures(config),
        loss_weights=loss_weights(config.datasets, prior_loss_weight=1.0),
        batch_size=[dataset.batch_size for dataset in config.datasets],
        masks=chosen.masks,
    )


def some_of(chosen: Chosen, count: int, *, config: Config, seed: int) -> Chosen:
    """Return up to `count` trained images to measure beside the others, chosen by the seed."""
    members: dict[Path, list[int]] = {}
    for position, (placement, latents) in enumerate(
        zip(chosen.placements, chosen.keys, strict=True)
    ):
        item = placement.item
        is_reg = config.datasets[item.dataset].subsets[item.subset].is_reg
        if not is_reg and latents.usable:
            members.setdefault(item.path, [position])
    picked = ranked(members, chosen.placements, seed)[:count]
    return chosen.only([members[path][0] for path in picked])


def folder_config(config: Config, folder: Path) -> Config:
    """Return a config whose only images are those of a validation folder.

    They are sized and captioned as those of the first dataset and its first subset.
    """
    first = config.datasets[0]
    like = first.subsets[0]
    subset = SubsetSettings(
        image_dir=folder,
        caption_extension=like.caption_extension,
        class_tokens=like.class_tokens,
        recursive=True,
        resize_interpolation=like.resize_interpolation,
    )
    dataset = first.model_copy(update={"subsets": (subset,), "validation_split": 0.0})
    return replace(config, datasets=(dataset,), notices=())


def warn_of_overlap(
    held_out: Sequence[Path],
    train: Sequence[Path],
    *,
    cache: Path,
    record: Path,
    max_workers: int,
    emit: Emit,
) -> tuple[Pair, ...]:
    """Say which held-out pictures are trained on as well, under whatever name, size or quality.

    All pairs go into `record`, one JSON object a line.
    """
    seen = looks_of([*held_out, *train], folder=cache, emit=emit, max_workers=max_workers)
    held = {path: seen[path] for path in held_out if path in seen}
    trained = {path: seen[path] for path in train if path in seen}
    by_digest: dict[str, list[Path]] = {}
    for path, one in trained.items():
        by_digest.setdefault(one.digest, []).append(path)
    pairs = [
        Pair(held_out=path, train=other, kind="same file")
        for path, one in held.items()
        for other in by_digest.get(one.digest, ())
    ]
    known = {(pair.held_out, pair.train) for pair in pairs}
    looks = {path: one.look for path, one in trained.items()}
    pairs += [
        pair
        for pair in pairs_alike({path: one.look for path, one in held.items()}, looks)
        if (pair.held_out, pair.train) not in known
    ]
    if pairs:
        _tell(pairs, record, emit)
    return tuple(pairs)


def _tell(pairs: Sequence[Pair], record: Path, emit: Emit) -> None:
    lines = [
        json.dumps({"held_out": str(p.held_out), "train": str(p.train), "kind": p.kind})
        for p in pairs
    ]
    write_text(record, "\n".join(lines) + "\n")
    shown = [f"{p.held_out} and {p.train} ({p.kind})" for p in pairs[:NUM_PAIRS_SHOWN]]
    more = len(pairs) - len(shown)
    count = len({p.held_out for p in pairs})
    message = (
        f"{plural(count, 'held-out picture')} {'is' if count == 1 else 'are'} trained on as well,"
        " so the validation loss says less: "
        + "; ".join(shown)
        + (f"; and {more} more" if more else "")
        + f"; all pairs are in {record.name}"
    )
    emit(Notice(severity="warning", topic="validation", message=message))
