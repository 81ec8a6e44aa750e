"""`sdft plan`: what a run comes to before it starts. Needs no torch.

In: a Config and perhaps the size of a card. Out: steps, learning rates, disk, memory by bucket,
time, and what to change so that it fits. Reads image headers, captions, and the model's header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from sdft.cache.shard import StoredDtype
from sdft.cache.text import TextCachePlan, plan_text_cache
from sdft.config.load import Config
from sdft.config.prompts import read_prompts
from sdft.config.training import TrainingSettings
from sdft.dataset.records import WordRules
from sdft.dataset.tables import PlacementTable
from sdft.errors import UserError
from sdft.events import Emit, Notice
from sdft.jobs.learning_rate import build_lr_factor
from sdft.jobs.ordering import RunLength, groups_of, order_of
from sdft.jobs.planning.asking import PlannedModel, Shape, Use, has_bitsandbytes
from sdft.jobs.planning.disk import plan_disk
from sdft.jobs.planning.figures import BucketMemory, PlanResult
from sdft.jobs.planning.fitting import Fit, fit
from sdft.jobs.planning.foresight import Foresight
from sdft.jobs.planning.machine import card_found, cpu_seconds_a_step, imagined_card
from sdft.jobs.planning.many import plan_many
from sdft.jobs.sources import PlannedDataset, picture_rules, plan_dataset, word_rules
from sdft.jobs.splitting import split_off
from sdft.models.family import SD1, SD2_BASE, SD2_V, Family, settle_family
from sdft.models.open import open_model
from sdft.models.published import ModelSizes, published_sizes
from sdft.planning.cards import Card, seconds_a_step
from sdft.planning.memory import MemoryPlan
from sdft.planning.scaling import Links, link_bytes_per_s

USUAL_LINK = "400Gb"
"""Of a machine, where many GPUs are asked for and no link is named."""
NUM_RATES = 61
"""Points of the learning rate's curve."""
BYTES_PER_GB = 10**9
_DTYPES: Mapping[str, StoredDtype] = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run as far as it is known without torch."""

    config: Config
    model: PlannedModel
    model_name: str
    dataset: PlannedDataset
    table: PlacementTable
    """What is trained on."""
    length: RunLength
    use: Use
    cached: PlacementTable
    """Of these, those whose latents are kept."""
    texts: TextCachePlan | None

    @property
    def foresight(self) -> Foresight:
        sizes = self.dataset.batch_sizes
        shapes = {
            Shape(*group.bucket, min(sizes[group.dataset], group.num_uses))
            for group in self.length.order.groups
        }
        return Foresight(model=self.model, use=self.use, shapes=tuple(sorted(shapes)))


def run_plan(
    config: Config,
    *,
    vram_bytes: int | None,
    emit: Emit,
    gpus: int | None = None,
    link: str = USUAL_LINK,
) -> PlanResult:
    """Plan a run for the card that is found here, or for one of `vram_bytes`; with `gpus`, for
    so many of them too.

    Raises: DataError and UserError as training would, of images, captions and the model.
    """
    settings = config.training
    if gpus is not None and gpus < 1:
        raise UserError(what=f"{gpus} GPUs are too few", where="--gpus", fix="give 1 or more")
    links = Links(between_bytes_per_s=link_bytes_per_s(link))
    card = imagined_card(vram_bytes) if vram_bytes is not None else None
    if card is None and settings.device != "cpu":
        card = card_found()
    dataset = plan_dataset(config, emit=emit)
    planned = planned_run(config, dataset, on_gpu=card is not None, emit=emit)
    foresight = planned.foresight
    plans = foresight.all(settings)
    found = _fit(planned, foresight, card)
    length, order = planned.length, planned.length.order
    return PlanResult(
        model=planned.model_name,
        images=len(planned.table),
        held_out=len(planned.dataset.plan.placements) - len(planned.table),
        rejected=len(planned.dataset.rejected),
        steps=length.total_steps,
        epochs=length.num_epochs,
        steps_per_epoch=order.steps_through(1),
        effective_batch=tuple(order.effective_batch),
        rates=_rates(settings, length.total_steps),
        disk=plan_disk(
            config,
            planned.model,
            planned.use,
            length,
            planned.cached,
            contexts_bytes=planned.texts.num_bytes if planned.texts else 0,
        ),
        buckets=tuple(
            BucketMemory(
                width_px=shape.width_px,
                height_px=shape.height_px,
                batch_size=shape.batch_size,
                peak_bytes=plan.peak_bytes,
                parts=plan.parts,
            )
            for shape, plan in plans.items()
        ),
        card=card,
        fits=None if found is None else not found.changes and found.fits,
        changes=() if found is None else found.changes,
        sampling_bytes=foresight.sampling(settings, _sample_sides(planned)),
        changed_peak_bytes=found.peak_bytes if found is not None and found.changes else None,
        duration_s=_duration_s(planned, foresight, plans, card),
        why_no_memory="" if plans else _why_no_memory(settings),
        many=None
        if gpus is None
        else plan_many(
            settings,
            planned.model,
            planned.use,
            plans,
            card=card.name if card is not None else "",
            gpus=gpus,
            link=link,
            links=links,
        ),
    )


def planned_run(
    config: Config,
    dataset: PlannedDataset,
    *,
    on_gpu: bool,
    emit: Emit,
    num_processes: int | None = None,
) -> PlannedRun:
    """Return the run as training would find it: its images, its order, what each step does.

    `num_processes` is that of the setting if it is not given.

    Raises: what `open_model` and `order_of` raise.
    """
    settings = config.training
    model, name = _model(settings, emit)
    placements = dataset.plan.placements
    held_out = split_off(placements, [True] * len(placements), config.datasets)
    table = PlacementTable.of(placements)
    if held_out:
        table = table.take(sorted(set(range(len(placements))) - held_out))
    processes = num_processes or settings.num_processes
    length = order_of(
        settings,
        groups_of(table),
        dataset.batch_sizes,
        seed=settings.seed or 0,
        num_processes=processes,
    )
    live = {
        place
        for place, rules in picture_rules(config.datasets).items()
        if rules.change_each_use or not settings.cache_latents
    }
    is_live = [(place[0], place[1]) in live for place in table.item_places.tolist()]
    texts = None if settings.train_text_encoder else _texts(config, table, model)
    return PlannedRun(
        config=config,
        model=model,
        model_name=name,
        dataset=dataset,
        table=table,
        length=length,
        use=Use(
            on_gpu=on_gpu,
            reads_words=texts is not None and not texts.is_used,
            encodes_images=any(is_live),
            has_bitsandbytes=has_bitsandbytes(),
            num_processes=processes,
        ),
        cached=table.take([number for number, leave in enumerate(is_live) if not leave]),
        texts=texts,
    )


def _model(settings: TrainingSettings, emit: Emit) -> tuple[PlannedModel, str]:
    """Return the model's family and sizes, from its file or, without one, as published."""
    path = settings.pretrained_model_name_or_path
    if path is None:
        family: Family = SD1
        if settings.v2:
            family = SD2_V if settings.v_parameterization else SD2_BASE
        message = f"no model is named, so the plan is for {family.title}"
        emit(Notice(severity="info", topic="model", message=message))
        return PlannedModel(family=family, sizes=published_sizes(family.name)), family.title
    source = open_model(path, vae_path=settings.vae)
    source.check()
    family, _, _ = settle_family(
        source.generation,
        source.stated_prediction,
        v2=settings.v2,
        v_parameterization=settings.v_parameterization,
        where=str(path),
    )
    sizes = ModelSizes(
        unet=source.sizes("unet"),
        vae=source.sizes("vae"),
        text_encoder=source.sizes("text_encoder"),
    )
    return PlannedModel(family=family, sizes=sizes), Path(path).name


def _texts(config: Config, table: PlacementTable, model: PlannedModel) -> TextCachePlan | None:
    settings = config.training
    if settings.text_cache_gb == 0:
        return TextCachePlan(texts=(), num_bytes=0, reason="text_cache_gb is 0")
    words: Mapping[tuple[int, int], WordRules] = word_rules(config.datasets)
    captions = table.texts(table.items.captions)
    places = table.item_places.tolist()
    return plan_text_cache(
        (
            (caption, words[place[0], place[1]])
            for caption, place in zip(captions, places, strict=True)
        ),
        text_width=model.sizes.text_encoder.width,
        max_token_length=settings.max_token_length,
        dtype=_DTYPES[settings.mixed_precision],
        budget_bytes=int(settings.text_cache_gb * BYTES_PER_GB),
    )


def _rates(settings: TrainingSettings, total_steps: int) -> tuple[tuple[int, float], ...]:
    """Return (step, learning rate) from the first step to the last."""
    factor = build_lr_factor(settings, total_steps)
    last = max(total_steps - 1, 0)
    count = min(NUM_RATES, total_steps)
    steps = sorted({round(number * last / max(count - 1, 1)) for number in range(count)})
    return tuple((step, settings.learning_rate * factor(step)) for step in steps)


def _sample_sides(planned: PlannedRun) -> list[tuple[int, int]]:
    """Return width and height in pixels of what is drawn during the run."""
    file = planned.config.training.sample_prompts
    if file is None:
        return []
    usual = planned.model.family.resolution_px
    return [(one.width or usual, one.height or usual) for one in read_prompts(file, Path.cwd())]


def _fit(planned: PlannedRun, foresight: Foresight, card: Card | None) -> Fit | None:
    if card is None:
        return None
    return fit(planned.config, foresight, card.usable_bytes, has_bf16=card.has_bf16)


def _duration_s(
    planned: PlannedRun,
    foresight: Foresight,
    plans: Mapping[Shape, MemoryPlan],
    card: Card | None,
) -> float | None:
    """Return how long all steps take: what they compute, at the speed of the card or processor."""
    if not plans:
        return None
    settings, length = planned.config.training, planned.length
    order = length.order
    uses = sum(group.num_uses for group in order.groups)
    sizes = planned.dataset.batch_sizes
    mean = 0.0
    for group in order.groups:
        size = min(sizes[group.dataset], group.num_uses)
        mean += plans[Shape(*group.bucket, size)].flops / size * group.num_uses / uses
    per_step = mean * uses * length.num_epochs / max(1, order.steps_through(length.num_epochs))
    if card is not None:
        half = settings.mixed_precision != "no"
        seconds = seconds_a_step(
            card.name, int(per_step), half=half, compiled=settings.torch_compile
        )
        return None if seconds is None else seconds * length.total_steps
    trained = sum(map(prod, planned.model.sizes.unet.tensors().values()))
    return cpu_seconds_a_step(int(per_step), trained) * length.total_steps


def _why_no_memory(settings: TrainingSettings) -> str:
    if settings.hypernetwork:
        return "hypernetwork"
    if settings.fsdp:
        return "fsdp"
    return settings.optimizer_type
