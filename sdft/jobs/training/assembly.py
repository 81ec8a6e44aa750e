"""Builds a run from its settings: data, networks, engine. Brings torch.

In: a Config and perhaps a state. Out: a TrainingRun, ready for its first step.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from sdft.config.load import Config
from sdft.config.training import TrainingSettings
from sdft.control import ControlInbox
from sdft.dataset.report import write_fates
from sdft.events import Emit, Notice, SettingChosen
from sdft.jobs.learning_rate import build_lr_factor
from sdft.jobs.ordering import order_of
from sdft.jobs.sources import PlannedDataset, loss_weights, picture_rules, plan_dataset, word_rules
from sdft.jobs.stores import tensor_store
from sdft.jobs.training.card_fit import card_in_use, earlier_settings, fit_to_card
from sdft.jobs.training.contexts import cached_contexts
from sdft.jobs.training.data import TrainingData, training_data
from sdft.jobs.training.device_use import device_use
from sdft.jobs.training.held_out import Chosen, HeldOut, hold_out
from sdft.jobs.training.item_record import changes_since, items_job
from sdft.jobs.training.latents import CachedLatents, cached_latents, latent_source
from sdft.jobs.training.loading import load_model, networks_of
from sdft.jobs.training.machine import build_accelerator, ddp_wishes
from sdft.jobs.training.masks import CachedMasks, cached_masks
from sdft.jobs.training.networks import Networks
from sdft.jobs.training.outputs import Outputs
from sdft.jobs.training.recipes import build_batch_maker, build_stepper
from sdft.jobs.training.resuming import RunFacts, require_same
from sdft.jobs.training.running import TrainingRun
from sdft.jobs.training.safekeeping import (
    build_keeper,
    require_room,
    restore,
    run_facts,
)
from sdft.jobs.training.sharding import settle_sharding
from sdft.jobs.training.starting import first_place
from sdft.jobs.training.step_size import effective_batch
from sdft.jobs.training.team import ONLY_ONE, Team
from sdft.jobs.training.visible import require_seen
from sdft.jobs.training.watching import OVERLAP_RECORD, build_watch
from sdft.jobs.training.wishes import scales_loss
from sdft.models.bundle import ModelBundle
from sdft.models.compiling import CompileWatch
from sdft.rundir import RunDir
from sdft.train.guard import first_bad_weight
from sdft.train.loop import RunPlan
from sdft.train.memory_watch import MemoryWatch
from sdft.train.meter import Meter
from sdft.train.remarks import RemarkTeller
from sdft.train.sampler import Order
from sdft.train.spill import SpillWatch
from sdft.train.state import Progress, SavedState

MAX_SEED = 2**31
"""Drawn seeds are this short so that a person can type them; sd-scripts draws 31 bits too."""


@dataclass(frozen=True, kw_only=True)
class _Images:
    """The pictures of a run: where their latents lie, what is measured, what is trained on."""

    latents: CachedLatents
    masks: CachedMasks
    held_out: HeldOut
    data: TrainingData


def prepare_run(
    config: Config,
    *,
    run: RunDir,
    state: SavedState | None,
    emit: Emit,
    events_bytes: Callable[[], int],
    outputs: Outputs | None = None,
    team: Team = ONLY_ONE,
) -> TrainingRun:
    """Index, cache, load and build everything that a run needs.

    What is read from images and written is the main process' work; the others get its results.

    Raises: SdftError of every kind.
    """
    config, dataset, planned_bytes = _settle(config, run=run, state=state, emit=emit, team=team)
    settings = config.training
    accelerator = build_accelerator(
        device=settings.device,
        mixed_precision=settings.mixed_precision,
        deterministic=settings.deterministic,
        own_scaler=scales_loss(settings),
        tf32=settings.tf32,
        emit=emit,
        ddp=ddp_wishes(settings),
        spreads_weights=settings.fsdp,
    )
    bundle = team.in_turn(lambda: load_model(settings))
    images = _images(config, dataset, bundle, accelerator, run=run, emit=emit, team=team)
    data = images.data
    plan = run_plan(settings, data, accelerator, emit, state=state)
    use = device_use(
        settings,
        accelerator.device,
        num_shapes=len({(group.dataset, group.bucket) for group in data.groups}),
        total_steps=plan.total_steps,
        emit=emit,
    )
    networks = networks_of(settings, bundle, accelerator, use, emit)
    facts = run_facts(config, data, networks, plan)
    progress = _place(settings, state, facts, networks, plan, data, run=run, emit=emit)
    meter = Meter(
        progress,
        emit=emit,
        device=accelerator.device,
        name_of=lambda use: data.items[use.placement].key,
        bad_weight=lambda: first_bad_weight(networks.modules()),
        stops_at_bad_steps=settings.on_bad_step == "stop",
        judges=team.is_main,
        gradients_may_overflow=networks.scaler is not None or accelerator.scaler is not None,
        spill=SpillWatch(accelerator.device, emit),
        memory=MemoryWatch(planned_bytes, emit),
    )
    keeper = build_keeper(
        config,
        run=run,
        plan=plan,
        networks=networks,
        facts=facts,
        events_bytes=events_bytes,
        emit=emit,
        outputs=outputs or Outputs(),
        team=team,
    )
    networks.wait_for_copies.append(keeper.writer.wait_for_copies)
    if team.is_main:
        # Beside the first steps; each save waits for it, so that no state is without it.
        keeper.writer.submit([items_job(run.items, data)])
        require_room(keeper, settings, progress, emit)
    if state is not None:
        keeper.catch_up(progress)
    contexts = team.from_main(
        lambda: cached_contexts(
            settings,
            images.held_out.train.placements,
            word_rules(config.datasets),
            networks,
            store=tensor_store(config, "contexts", emit),
            emit=emit,
        )
    )
    if contexts is not None:
        networks.park_text_encoder()
    source = latent_source(settings, images.latents, bundle, accelerator, emit)
    maker = build_batch_maker(settings, data, bundle, source, images.masks, plan, contexts)
    stepper = build_stepper(settings, networks)
    watch = build_watch(
        config,
        images.held_out,
        run=run,
        networks=networks,
        stepper=stepper,
        maker=maker,
        keeper=keeper,
        emit=emit,
    )
    return TrainingRun(
        config=config,
        plan=plan,
        data=data,
        networks=networks,
        maker=maker,
        stepper=stepper,
        lr_factor=build_lr_factor(settings, plan.total_steps),
        meter=meter,
        watch=watch,
        say=RemarkTeller(
            emit=emit, max_failed=max(1, int(data.num_images * settings.max_rejected_share))
        ),
        inbox=ControlInbox(run) if team.is_main else None,
        emit=emit,
        team=team,
        resumed_from=state.path if state else None,
        compile_watch=CompileWatch(emit) if use.compile is not None else None,
    )


def _settle(
    config: Config, *, run: RunDir, state: SavedState | None, emit: Emit, team: Team
) -> tuple[Config, PlannedDataset, Mapping[tuple[int, int], int]]:
    """Return the settings with all that was left open, the indexed images, and the bytes of the
    device that each bucket is planned to take; none on a CPU."""
    unseeded = config
    config = team.from_main(
        lambda: settle_sharding(with_seed(unseeded, state, emit), team.size, emit)
    )
    require_seen(config, team)
    dataset = team.from_main(lambda: plan_dataset(config, emit=emit))
    planned_bytes: Mapping[tuple[int, int], int] = {}
    on_gpu = config.training.device != "cpu" and torch.cuda.is_available()
    if on_gpu and config.training.fsdp:
        message = "with fsdp the memory of a step is not foreseen, so nothing is chosen to fit"
        emit(Notice(severity="info", topic="memory", message=message))
    elif on_gpu:
        unfitted = config
        # All use the same settings, even where their cards differ.
        config, planned_bytes = team.from_main(
            lambda: fit_to_card(
                unfitted,
                dataset,
                card_in_use(),
                earlier=earlier_settings(run, state),
                emit=emit,
                num_processes=team.size,
            )
        )
    return config, dataset, planned_bytes


def _images(
    config: Config,
    dataset: PlannedDataset,
    bundle: ModelBundle,
    accelerator: Accelerator,
    *,
    run: RunDir,
    emit: Emit,
    team: Team,
) -> _Images:
    """Encode what the cache lacks, hold out what is measured, and write every image's fate."""
    settings = config.training
    latents = cached_latents(config, dataset, bundle, accelerator=accelerator, emit=emit, team=team)
    placements = dataset.plan.placements
    masks = team.from_main(lambda: cached_masks(config, placements, latents.keys, emit=emit))
    held_out = hold_out(
        config,
        Chosen(placements=placements, keys=latents.keys, masks=masks.keys),
        bundle=bundle,
        accelerator=accelerator,
        record=run.path / OVERLAP_RECORD,
        emit=emit,
        team=team,
    )
    # The pictures of a validation folder went into the same store.
    latents.store.refresh()
    if team.is_main:
        rejected = (*dataset.rejected, *latents.rejected)
        write_fates(run.fates_file, dataset.index, dataset.plan, rejected, held_out.paths)
    data = training_data(
        held_out.train.placements,
        held_out.train.keys,
        words=word_rules(config.datasets),
        pictures=picture_rules(config.datasets),
        loss_weights=loss_weights(config.datasets, settings.prior_loss_weight),
        batch_size=dataset.batch_sizes,
        masks=held_out.train.masks,
    )
    return _Images(latents=latents, masks=masks, held_out=held_out, data=data)


def _place(
    settings: TrainingSettings,
    state: SavedState | None,
    facts: RunFacts,
    networks: Networks,
    plan: RunPlan,
    data: TrainingData,
    *,
    run: RunDir,
    emit: Emit,
) -> Progress:
    """Return where the run begins; a state's weights and optimizer are put back."""
    if state is None:
        return first_place(settings, plan, emit)
    digest = state.identity.parts.get("dataset", "")
    changed = require_same(
        state,
        facts,
        allowed=settings.allow_changed,
        dataset_changes=changes_since(run.items, digest, data),
        emit=emit,
    )
    restore(networks, state, settings=settings, changed=changed)
    return state.progress


def with_seed(config: Config, state: SavedState | None, emit: Emit) -> Config:
    """Return the config with a seed: the one set, the resumed run's, or a new one."""
    if config.training.seed is not None:
        return config
    if state is not None:
        return config.with_training(seed=int(state.identity.parts["seed"]))
    seed = secrets.randbelow(MAX_SEED)
    emit(SettingChosen(name="seed", value=seed, reason="none was set"))
    return config.with_training(seed=seed)


def run_plan(
    settings: TrainingSettings,
    data: TrainingData,
    accelerator: Accelerator,
    emit: Emit,
    *,
    state: SavedState | None = None,
) -> RunPlan:
    """Return the order and length of the run.

    Raises: UserError where a state's effective batch does not suit the processes; DataError where
        there is no whole step.
    """
    assert settings.seed is not None, "with_seed comes first"
    accumulation = settings.gradient_accumulation_steps
    length = order_of(
        settings,
        data.groups,
        data.batch_size,
        seed=settings.seed,
        num_processes=accelerator.num_processes,
        effective_batch=effective_batch(
            settings, data.batch_size, accelerator.num_processes, state=state, emit=emit
        ),
    )
    order = length.order
    _tell_of_order(order, data, accumulation * accelerator.num_processes, emit)
    return RunPlan(
        order=order,
        batch_size=data.batch_size,
        total_steps=length.total_steps,
        num_epochs=length.num_epochs,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )


def _tell_of_order(order: Order, data: TrainingData, batches_a_step: int, emit: Emit) -> None:
    """Say where an epoch is not what people of sd-scripts expect, or leaves images out."""
    per_epoch = order.steps_through(1)
    elsewhere = math.ceil(data.num_batches_per_epoch / batches_a_step)
    if elsewhere != per_epoch:
        message = (
            f"an epoch has {per_epoch} steps; sd-scripts would count {elsewhere}, because there"
            " a step may take batches of several buckets and every batch may be partial"
        )
        emit(Notice(severity="info", topic="steps", message=message))
    if left_out := order.left_out():
        message = (
            f"partial_batches = drop leaves {left_out} of {order.num_uses} uses out of each epoch;"
            f" images of {order.never_used()} buckets are never trained on"
        )
        emit(Notice(severity="warning", topic="steps", message=message))
