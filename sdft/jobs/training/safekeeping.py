"""Builds what keeps a run's work, and puts a state back into live networks.

In: settings, the plan, the live networks. Out: a Keeper, RunFacts, restored networks, the guard
that goes back to earlier weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sdft.config.load import Config
from sdft.config.training import TrainingSettings
from sdft.config.write import config_digest, named_values
from sdft.errors import DataError
from sdft.events import Emit, Notice
from sdft.jobs.saving_rules import save_rules
from sdft.jobs.training.data import TrainingData
from sdft.jobs.training.disk_needs import DiskNeeds, require_disk
from sdft.jobs.training.hypernetworks import checkpoint_writer
from sdft.jobs.training.keeping import Keeper, RollingRules, StateSource
from sdft.jobs.training.networks import Networks
from sdft.jobs.training.outputs import Outputs
from sdft.jobs.training.resuming import RunFacts
from sdft.jobs.training.starting import machine_facts
from sdft.jobs.training.team import ONLY_ONE, Team
from sdft.rundir import RunDir
from sdft.train.background import BackgroundWriter
from sdft.train.loop import RunPlan
from sdft.train.meter import Meter
from sdft.train.optimizer_words import parse_arguments
from sdft.train.state import (
    Identity,
    Progress,
    SavedState,
    finished_states,
    read_module,
    read_optimizer,
    read_state,
    step_of,
)

MAX_ROLLBACKS = 2
"""More would mean that every state leads to the same end."""

_RATES = frozenset({"learning_rate", "learning_rate_te", "block_lr", "lr_by_name"})
_BYTES_OF_PRECISION = {"float": 4, "fp16": 2, "bf16": 2}


def run_facts(config: Config, data: TrainingData, networks: Networks, plan: RunPlan) -> RunFacts:
    """Return what has to be the same when a run goes on; its length may change."""
    any_length = config.with_training(max_train_steps=1, max_train_epochs=None, seed=0)
    return RunFacts(
        identity=Identity(
            parts={
                "settings": config_digest(any_length),
                "seed": str(config.training.seed),
                "dataset": data.digest,
                "model": networks.fingerprint(),
                "effective_batch": ",".join(map(str, plan.effective_batch)),
            }
        ),
        settings=named_values(any_length),
        machine=machine_facts(
            networks.accelerator.device, plan.num_processes, is_spread=config.training.fsdp
        ),
    )


def restore(
    networks: Networks,
    state: SavedState,
    *,
    settings: TrainingSettings,
    changed: Collection[str] = (),
) -> None:
    """Put a state's weights and optimizer back.

    What the optimizer was told by settings in `changed` stays as it is now.

    Raises: DataError where the state does not fit the networks.
    """
    groups = networks.plain_optimizer.param_groups
    now = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    try:
        for stem in networks.trained_weights():
            networks.load_weights(stem, read_module(state.path, stem))
        networks.load_optimizer_state(read_optimizer(state.path))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            what=f"this state does not fit the model or the optimizer: {error}",
            where=str(state.path),
            fix="resume with the settings that it was made with",
        ) from error
    fresh = {"base_lr"} if _RATES & set(changed) else set()
    if "optimizer_args" in changed:
        fresh |= parse_arguments(settings.optimizer_args, where="optimizer_args").keys()
    for group, values in zip(networks.plain_optimizer.param_groups, now, strict=True):
        group.update({key: values[key] for key in fresh if key in values})


def build_keeper(
    config: Config,
    *,
    run: RunDir,
    plan: RunPlan,
    networks: Networks,
    facts: RunFacts,
    events_bytes: Callable[[], int],
    emit: Emit,
    outputs: Outputs,
    team: Team = ONLY_ONE,
) -> Keeper:
    """Return what saves the run; of several processes one writes."""
    settings = config.training
    write_model = checkpoint_writer(settings, networks, config.datasets[0].resolution)
    rules, state_rules = save_rules(settings, plan.num_epochs)
    keeps = not settings.no_rolling_state
    return Keeper(
        output_dir=run.path.parent,
        output_name=run.path.stem,
        form=write_model.form,
        states=run.states,
        total_steps=plan.total_steps,
        num_epochs=plan.num_epochs,
        steps_through=plan.order.steps_through,
        checkpoints=rules,
        state_rules=state_rules,
        rolling=RollingRules(
            every_s=60.0 * settings.rolling_state_minutes if keeps else 0.0,
            every_n_steps=(settings.rolling_state_steps or 0) if keeps else 0,
        ),
        write_model=write_model,
        state=StateSource(
            modules=networks.trained_weights,
            optimizer=networks.optimizer_state,
            identity=facts.identity,
            events_bytes=events_bytes,
            settings=facts.settings,
            machine=facts.machine,
            gather=networks.gather,
        ),
        writer=BackgroundWriter(emit=emit),
        emit=emit,
        outputs=outputs,
        checkpoint_every_s=60.0 * (settings.save_every_n_minutes or 0.0),
        states_with_checkpoints=settings.save_state,
        writes=team.is_main,
        team=None if networks.gather is None else team,
    )


def require_room(
    keeper: Keeper, settings: TrainingSettings, progress: Progress, emit: Emit
) -> None:
    """Say when the disk will be full, if it will.

    Raises: EnvironmentFault where not even the result has room.
    """
    networks = keeper.write_model.networks
    model = (networks.plain_unet, networks.plain_text_encoder, networks.bundle.vae)
    saved = model if networks.hypernetwork is None else (networks.hypernetwork,)
    count = sum(one.numel() for module in saved for one in module.parameters())
    # The optimizer has no state before its first step: two numbers a weight, as Adam's, or one
    # byte each for an 8-bit one.
    trained = sum(one.numel() for one in networks.parameters)
    per_weight = 2 if "8bit" in settings.optimizer_type.lower() else 8
    modules = sum(
        one.numel() * one.element_size()
        for tensors in keeper.state.modules().values()
        for one in tensors.values()
    )
    require_disk(
        DiskNeeds(
            first_step=progress.step,
            total_steps=keeper.total_steps,
            num_epochs=keeper.num_epochs,
            steps_through=keeper.steps_through,
            checkpoints=keeper.checkpoints,
            checkpoint_bytes=count * _BYTES_OF_PRECISION.get(settings.save_precision or "", 4),
            state_rules=keeper.state_rules,
            state_bytes=modules + per_weight * trained,
            keeps_rolling_state=not settings.no_rolling_state,
            state_at_end=settings.save_state or settings.save_state_on_train_end,
        ),
        keeper.output_dir,
        emit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """Goes back to earlier weights when too many steps in a row could not be used.

    The place in the data stays where it is, so that the images that led there are not met again.
    """

    keeper: Keeper
    networks: Networks
    settings: TrainingSettings
    emit: Emit
    team: Team = ONLY_ONE

    def after_step(self, meter: Meter) -> None:
        """Go back if need be.

        Raises: DataError where there is nothing to go back to, or it was done too often.
        """
        in_row = meter.bad_steps_in_row
        if in_row < self.settings.max_bad_steps:
            return
        state = self.team.from_main(lambda: self._earlier_state(meter.progress, in_row))
        restore(self.networks, state, settings=self.settings)
        meter.rolled_back()
        message = (
            f"{in_row} steps in a row could not be used: the weights are those of step"
            f" {state.progress.step} again, and the data goes on after step {meter.step}"
        )
        self.emit(Notice(severity="warning", topic="rollback", message=message))

    def _earlier_state(self, progress: Progress, in_row: int) -> SavedState:
        """Return the last state before a number of steps that could not be used.

        Raises: DataError.
        """
        self.keeper.writer.wait()
        first_bad = progress.step - in_row + 1
        earlier = [
            folder
            for folder in finished_states(self.keeper.states)
            if step_of(folder) < first_bad - 1
        ]
        if not earlier or progress.num_rollbacks >= MAX_ROLLBACKS:
            why = "there is no earlier state" if not earlier else "going back did not help"
            raise DataError(
                what=f"{in_row} steps in a row could not be used, and {why}",
                where=f"step {progress.step}",
                fix="lower learning_rate, or use mixed_precision bf16 or no instead of fp16",
                key="too_many_bad_steps",
                values={"in_row": in_row},
            )
        return read_state(earlier[-1])


def scaled_rates(optimizer: Any, rate: float) -> Mapping[str, float]:
    """Give the first group a new base rate and the others one in proportion; return old and new.

    Raises: DataError where the old rate is 0 or the optimizer finds its rate itself.
    """
    old = float(optimizer.param_groups[0]["base_lr"])
    if old <= 0:
        raise DataError(what=f"the learning rate is {old}, so others have no proportion to it")
    for group in optimizer.param_groups:
        group["base_lr"] = group["base_lr"] / old * rate
    return {"old": old, "new": rate}
