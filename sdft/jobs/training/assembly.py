"""Builds a run from its settings: data, networks, engine. Brings torch.

In: a Config and perhaps a state. Out: a TrainingRun, ready for its first step.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from sdft.config.load import Config
from sdft.config.training import TrainingSettings
from sdft.config.write import config_digest
from sdft.dataset.report import write_fates
from sdft.events import Emit, Notice, SettingChosen
from sdft.jobs.sources import plan_dataset, word_rules
from sdft.jobs.training.data import TrainingData, training_data
from sdft.jobs.training.keeping import Keeper, StateSource
from sdft.jobs.training.latents import cached_latents
from sdft.jobs.training.machine import build_accelerator, weight_dtype
from sdft.jobs.training.networks import Networks, prepare_networks
from sdft.jobs.training.recipes import build_batch_maker, build_lr_factor, build_stepper
from sdft.jobs.training.resuming import require_same
from sdft.jobs.training.saving import ModelWriter, chosen_form
from sdft.models.bundle import ModelBundle, load_bundle
from sdft.models.digest import weights_fingerprint
from sdft.rundir import RunDir
from sdft.train.batch import BatchMaker
from sdft.train.checkpoint import SaveRules
from sdft.train.loop import BetweenSteps, RunPlan, train
from sdft.train.lr import Factor
from sdft.train.meter import Meter
from sdft.train.optim import parse_arguments
from sdft.train.state import Identity, Progress, SavedState, read_module, read_optimizer
from sdft.train.step import Stepper

MAX_SEED = 2**31
"""Drawn seeds are this short so that a person can type them; sd-scripts draws 31 bits too."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Everything built; `train` does the steps that are left."""

    config: Config
    """With all that was chosen filled in."""
    plan: RunPlan
    data: TrainingData
    networks: Networks
    maker: BatchMaker
    stepper: Stepper
    lr_factor: Factor
    meter: Meter
    keeper: Keeper
    resumed_from: Path | None

    def train(self, stop_reason: Callable[[], str | None]) -> str | None:
        """Do the updates that are left; return why it stopped early, or None at the end."""
        between = BetweenSteps(
            after_step=self.keeper.after_step,
            after_epoch=self.keeper.after_epoch,
            stop_reason=stop_reason,
        )
        return train(
            plan=self.plan,
            maker=self.maker,
            stepper=self.stepper,
            lr_factor=self.lr_factor,
            meter=self.meter,
            between=between,
        )

    def save_at_end(self) -> Path:
        """Write the last checkpoint, and the state where one was asked for; return the former."""
        progress = self.meter.progress
        settings = self.config.training
        if settings.save_state or settings.save_state_on_train_end:
            self.keeper.save_state(progress)
        return self.keeper.save_checkpoint(self.keeper.output_name, progress)


def prepare_run(
    config: Config,
    *,
    run: RunDir,
    state: SavedState | None,
    emit: Emit,
    events_bytes: Callable[[], int],
) -> TrainingRun:
    """Index, cache, load and build everything that a run needs.

    Raises: SdftError of every kind.
    """
    config = with_seed(config, state, emit)
    settings = config.training
    accelerator = build_accelerator(
        device=settings.device,
        mixed_precision=settings.mixed_precision,
        deterministic=settings.deterministic,
        emit=emit,
    )
    dataset = plan_dataset(config, emit=emit)
    bundle = _load_model(settings)
    latents = cached_latents(config, dataset, bundle, accelerator=accelerator, emit=emit)
    write_fates(run.fates_file, dataset.index, dataset.plan, (*dataset.rejected, *latents.rejected))
    data = training_data(
        dataset.plan.placements,
        latents.keys,
        words=word_rules(config.datasets),
        batch_size=dataset.batch_sizes,
    )
    plan = run_plan(settings, data, accelerator, emit)
    networks = _prepare_networks(settings, bundle, accelerator, emit)
    identity = run_identity(config, data, bundle, plan)
    if state is not None:
        require_same(state.identity, identity, where=state.path)
        _restore(networks, state)
    meter = Meter(
        state.progress if state else Progress(),
        emit=emit,
        device=accelerator.device,
        reduce_sum=lambda losses: accelerator.reduce(losses, reduction="sum"),
    )
    return TrainingRun(
        config=config,
        plan=plan,
        data=data,
        networks=networks,
        maker=build_batch_maker(settings, data, bundle, latents, plan),
        stepper=build_stepper(settings, networks),
        lr_factor=build_lr_factor(settings, plan.total_steps),
        meter=meter,
        keeper=_keeper(config, run, plan, networks, identity, events_bytes, emit),
        resumed_from=state.path if state else None,
    )


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
    settings: TrainingSettings, data: TrainingData, accelerator: Accelerator, emit: Emit
) -> RunPlan:
    """Return the order and length of the run."""
    accumulation = settings.gradient_accumulation_steps
    effective = [size * accumulation * accelerator.num_processes for size in data.batch_size]
    per_epoch = data.num_steps_per_epoch(effective)
    total = settings.max_train_steps
    if settings.max_train_epochs is not None:
        total = settings.max_train_epochs * per_epoch
    elsewhere = math.ceil(data.num_batches_per_epoch / (accumulation * accelerator.num_processes))
    if elsewhere != per_epoch:
        message = (
            f"an epoch has {per_epoch} steps; sd-scripts would count {elsewhere}, because there"
            " a step may take batches of several buckets"
        )
        emit(Notice(severity="info", topic="steps", message=message))
    assert settings.seed is not None, "with_seed comes first"
    return RunPlan(
        groups=data.groups,
        batch_size=data.batch_size,
        effective_batch=effective,
        seed=settings.seed,
        total_steps=total,
        num_epochs=math.ceil(total / per_epoch),
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )


def run_identity(
    config: Config, data: TrainingData, bundle: ModelBundle, plan: RunPlan
) -> Identity:
    """Return what has to be the same when a run goes on; its length may change."""
    settings = config.training
    any_length = config.with_training(max_train_steps=1, max_train_epochs=None, seed=0)
    return Identity(
        parts={
            "settings": config_digest(any_length),
            "seed": str(settings.seed),
            "dataset": data.digest,
            "model": weights_fingerprint(bundle.unet.state_dict()),
            "effective_batch": ",".join(map(str, plan.effective_batch)),
        }
    )


def _load_model(settings: TrainingSettings) -> ModelBundle:
    assert settings.pretrained_model_name_or_path is not None, "the check of the settings asks"
    return load_bundle(
        settings.pretrained_model_name_or_path,
        vae_path=settings.vae,
        v2=settings.v2,
        v_parameterization=settings.v_parameterization,
    )


def _prepare_networks(
    settings: TrainingSettings, bundle: ModelBundle, accelerator: Accelerator, emit: Emit
) -> Networks:
    return prepare_networks(
        bundle,
        accelerator,
        train_text_encoder=settings.train_text_encoder,
        learning_rate=settings.learning_rate,
        learning_rate_te=settings.learning_rate_te,
        optimizer_type=settings.optimizer_type,
        optimizer_arguments=parse_arguments(settings.optimizer_args, where="optimizer_args"),
        gradient_checkpointing=settings.gradient_checkpointing,
        clip_skip=settings.clip_skip,
        frozen_dtype=weight_dtype(accelerator.mixed_precision),
        emit=emit,
    )


def _restore(networks: Networks, state: SavedState) -> None:
    for stem in networks.trained_weights():
        networks.load_weights(stem, read_module(state.path, stem))
    networks.load_optimizer_state(read_optimizer(state.path))


def _keeper(
    config: Config,
    run: RunDir,
    plan: RunPlan,
    networks: Networks,
    identity: Identity,
    events_bytes: Callable[[], int],
    emit: Emit,
) -> Keeper:
    settings = config.training
    assert settings.output_dir is not None, "the check of the settings asks for it"
    form = chosen_form(settings, networks.bundle)
    every_n_epochs = settings.save_every_n_epochs
    if settings.save_n_epoch_ratio:
        every_n_epochs = max(1, plan.num_epochs // settings.save_n_epoch_ratio)
    rules = SaveRules(
        every_n_steps=settings.save_every_n_steps,
        every_n_epochs=every_n_epochs,
        last_n_steps=settings.save_last_n_steps,
        last_n_epochs=settings.save_last_n_epochs,
    )
    state_rules = replace(
        rules,
        last_n_steps=settings.save_last_n_steps_state or rules.last_n_steps,
        last_n_epochs=settings.save_last_n_epochs_state or rules.last_n_epochs,
    )
    return Keeper(
        output_dir=settings.output_dir,
        output_name=run.path.stem,
        form=form,
        states=run.states,
        total_steps=plan.total_steps,
        num_epochs=plan.num_epochs,
        checkpoints=rules,
        state_rules=state_rules if settings.save_state else SaveRules(),
        rolling_state_s=60.0 * settings.rolling_state_minutes,
        write_model=ModelWriter(
            networks=networks,
            settings=settings,
            form=form,
            resolution=config.datasets[0].resolution,
        ),
        state=StateSource(
            modules=networks.trained_weights,
            optimizer=networks.optimizer_state,
            identity=identity,
            events_bytes=events_bytes,
        ),
        emit=emit,
    )
