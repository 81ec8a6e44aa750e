"""A run that is built and ready: its steps, and what comes between and after them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sdft.config.load import Config
from sdft.control import ControlInbox
from sdft.events import Emit
from sdft.jobs.controlled import Controlled
from sdft.jobs.training.data import TrainingData
from sdft.jobs.training.keeping import Keeper
from sdft.jobs.training.networks import Networks
from sdft.jobs.training.safekeeping import (
    Rollback,
)
from sdft.jobs.training.steering import build_actions
from sdft.jobs.training.stopping import ASKED, StopRequest
from sdft.jobs.training.team import Team
from sdft.jobs.training.together import Together
from sdft.jobs.training.watching import Watch, is_finished
from sdft.models.compiling import CompileWatch
from sdft.train.batch import BatchMaker
from sdft.train.loop import BetweenSteps, RunPlan, train
from sdft.train.lr import Factor
from sdft.train.meter import Meter
from sdft.train.remarks import RemarkTeller
from sdft.train.step import Stepper


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
    watch: Watch
    say: RemarkTeller
    inbox: ControlInbox | None
    """None but in the main process."""
    emit: Emit
    team: Team
    resumed_from: Path | None
    compile_watch: CompileWatch | None = None
    """Where the U-Net is compiled."""

    @property
    def keeper(self) -> Keeper:
        return self.watch.keeper

    def train(self, stop: StopRequest) -> str | None:
        """Do the updates that are left; return why it stopped early, or None at the end."""
        together = None
        if self.team.size > 1:
            together = Together(self.team, stop, self.inbox, self.say)
            if self.keeper.team is not None:
                self.keeper.agree = together.agree
        self.watch.at_first(self.meter)
        device = self.networks.accelerator.device
        if device.type == "cuda":
            # What encoding and first samples took is no part of the plan of a step.
            torch.cuda.reset_peak_memory_stats(device)
        try:
            reason = train(
                plan=self.plan,
                maker=self.maker,
                stepper=self.stepper,
                lr_factor=self.lr_factor,
                meter=self.meter,
                between=self._between(stop, together),
                say=self.say if together is None else together.say,
            )
        finally:
            self.maker.latents.close()
            if self.compile_watch is not None:
                self.compile_watch.close()
        if is_finished(reason):
            self.watch.at_end(self.meter)
        return reason

    def _between(self, stop: StopRequest, together: Together | None) -> BetweenSteps:
        """Return what the loop calls: guards first, then who watches and saves, then orders."""
        settings = self.config.training
        between = self.watch.between(together or stop)
        rollback = Rollback(
            keeper=self.keeper,
            networks=self.networks,
            settings=settings,
            emit=self.emit,
            team=self.team,
        )
        inbox = together or self.inbox
        assert inbox is not None, "one process is the main process"
        controlled = Controlled(
            inbox,
            build_actions(
                watch=self.watch,
                networks=self.networks,
                meter=self.meter,
                optimizer_type=settings.optimizer_type,
                stop=lambda: stop.ask(ASKED),
            ),
            emit=self.emit,
            stop_reason=together or stop,
        )

        def after_step(meter: Meter) -> None:
            if self.compile_watch is not None:
                self.compile_watch.after_step(meter.step)
            rollback.after_step(meter)
            between.after_step(meter)
            controlled.after_step(meter.step)

        return replace(between, after_step=after_step)

    def save_at_end(self) -> Path:
        """Write the last checkpoint, and the state where one was asked for; return the former."""
        progress = self.meter.progress
        settings = self.config.training
        checkpoint = self.keeper.save_checkpoint(self.keeper.output_name, progress)
        if settings.save_state or settings.save_state_on_train_end:
            self.keeper.save_state(progress)
        return checkpoint
