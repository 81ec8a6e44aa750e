"""What happens between the steps of a run: it is measured, it draws, it is saved.

In: the settings and the live parts of a run. Out: a Watch, whose methods the loop calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from torch import Tensor
from torch.nn import Module

from sdft.config.load import Config
from sdft.config.prompts import read_prompts
from sdft.events import Emit
from sdft.jobs.training.data import TrainingData
from sdft.jobs.training.drawing import Drawer, requests_of
from sdft.jobs.training.held_out import HeldOut, measured_data, some_of
from sdft.jobs.training.keeping import Keeper
from sdft.jobs.training.networks import Networks, text_reader
from sdft.jobs.training.sampling import SampleRules, Sampling
from sdft.jobs.training.stopping import NO_GAIN
from sdft.jobs.training.validating import Validating, ValidationRules
from sdft.rundir import RunDir
from sdft.train.batch import Batch, BatchMaker
from sdft.train.loop import BetweenSteps
from sdft.train.meter import Meter
from sdft.train.step import EncodeText, Stepper
from sdft.train.validation import Examiner, LossesOf, fixed_timesteps, portions

BEST = "best"
"""Ends the name of the checkpoint that measured best."""

VALIDATION_RECORD = "validation.json"
OVERLAP_RECORD = "overlap.jsonl"
"""In the run folder."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Calls each watcher in its turn.

    Measuring and drawing come before saving: a state then holds the place in `events.jsonl`
    behind what they said, and a resumed run says nothing twice.
    """

    keeper: Keeper
    sampling: Sampling | None
    validating: Validating | None

    def at_first(self, meter: Meter) -> None:
        if self.validating is not None:
            self.validating.at_first(meter)
        if self.sampling is not None:
            self.sampling.at_first(meter)

    def after_step(self, meter: Meter) -> None:
        if self.validating is not None:
            self.validating.after_step(meter)
        if self.sampling is not None:
            self.sampling.after_step(meter)
        self.keeper.after_step(meter)

    def after_epoch(self, meter: Meter) -> None:
        if self.validating is not None:
            self.validating.after_epoch(meter)
        if self.sampling is not None:
            self.sampling.after_epoch(meter)
        self.keeper.after_epoch(meter)

    def at_end(self, meter: Meter) -> None:
        """Measure what the last checkpoint will be, however the rules fall."""
        if self.validating is not None:
            progress = meter.progress
            # Between two epochs the count is ahead already.
            epoch = progress.epoch if progress.steps_into_epoch else progress.epoch - 1
            self.validating.measure_now(meter, epoch=epoch)

    def between(self, asked_to_stop: Callable[[], str | None]) -> BetweenSteps:
        """Return what the loop calls."""

        def stop_reason() -> str | None:
            enough = self.validating.stop_reason() if self.validating is not None else None
            return asked_to_stop() or enough

        return BetweenSteps(
            after_step=self.after_step, after_epoch=self.after_epoch, stop_reason=stop_reason
        )


def is_finished(reason: str | None) -> bool:
    """Tell whether a loop that ended for this reason did all that was asked of it."""
    return reason in (None, NO_GAIN)


def build_watch(
    config: Config,
    held_out: HeldOut,
    *,
    run: RunDir,
    networks: Networks,
    stepper: Stepper,
    maker: BatchMaker,
    keeper: Keeper,
    emit: Emit,
) -> Watch:
    """Return what watches a run.

    Raises: ConfigError where the file of prompts has mistakes.
    """
    builder = _Builder(config, run, networks, stepper, maker, keeper, emit)
    return Watch(
        keeper=keeper, sampling=builder.sampling(), validating=builder.validating(held_out)
    )


@dataclass(frozen=True)
class _Builder:
    """The live parts of a run, and what is built of them."""

    config: Config
    run: RunDir
    networks: Networks
    stepper: Stepper
    maker: BatchMaker
    keeper: Keeper
    emit: Emit

    def sampling(self) -> Sampling | None:
        settings = self.config.training
        if settings.sample_prompts is None:
            return None
        assert settings.seed is not None, "a seed is chosen first"
        bundle = self.networks.bundle
        requests = requests_of(
            read_prompts(settings.sample_prompts, Path.cwd()),
            resolution_px=bundle.family.resolution_px,
            sampler=settings.sample_sampler,
            seed=settings.seed,
        )
        return Sampling(
            requests=requests,
            rules=SampleRules.of(settings),
            drawer=Drawer(
                bundle=bundle,
                unet=self.networks.plain_unet,
                encode_text=self._encode_text(),
                reader=replace(self.maker.reader, weighted=True),
                zero_terminal_snr=settings.zero_terminal_snr,
                device=self.networks.accelerator.device,
            ),
            modules=self._modules(),
            folder=self.run.samples,
            name=self.run.path.stem,
            accelerator=self.networks.accelerator,
            emit=self.emit,
            weights=self.networks.drawing,
            in_step=self.networks.gather is not None,
        )

    def validating(self, held_out: HeldOut) -> Validating | None:
        if held_out.measured is None:
            return None
        settings = self.config.training
        measured = self._examiner(measured_data(held_out.measured, held_out.config), held_out.seed)
        beside = some_of(
            held_out.train, measured.num_images, config=self.config, seed=held_out.seed
        )
        # What is trained on is measured in full: it is no more than the others.
        train = self._examiner(measured_data(beside, self.config), held_out.seed)
        return Validating(
            rules=ValidationRules.of(settings),
            held_out=measured,
            train=train,
            losses_of=self._losses_of(),
            modules=self._modules(),
            weights=self.networks.drawing,
            record=self.run.path / VALIDATION_RECORD,
            identity=_identity(measured, train),
            save_best=self._save_best,
            accelerator=self.networks.accelerator,
            emit=self.emit,
            in_step=self.networks.gather is not None,
        )

    def _examiner(self, data: TrainingData, seed: int) -> Examiner:
        settings = self.config.training
        return Examiner(
            maker=replace(self.maker, items=data.items, seed=seed),
            portions=portions(
                data.groups, data.batch_size, max_portions=settings.max_validation_steps
            ),
            timesteps=fixed_timesteps(
                settings.validation_timesteps,
                min_timestep=settings.min_timestep,
                max_timestep=settings.max_timestep,
            ),
        )

    def _losses_of(self) -> LossesOf:
        # The networks without what exchanges gradients: processes do not measure in step.
        unet, encode_text = self.networks.plain_unet, self._encode_text()
        device = self.networks.accelerator.device

        def losses_of(host_batch: Batch) -> Tensor:
            batch = host_batch.to(device)
            contexts_BSD = batch.contexts_BSD
            if contexts_BSD is None:
                contexts_BSD = encode_text(batch.ids_BKS, batch.word_weights_BKS)
            return self.stepper.objective.losses(unet, batch, contexts_BSD)

        return losses_of

    def _encode_text(self) -> EncodeText:
        networks = self.networks
        return text_reader(
            networks.bundle,
            networks.plain_text_encoder,
            clip_skip=self.config.training.clip_skip,
            trains=False,
        )

    def _modules(self) -> tuple[Module, ...]:
        return tuple(self.networks.modules().values())

    def _save_best(self, meter: Meter) -> None:
        self.keeper.replace_checkpoint(f"{self.keeper.output_name}-{BEST}", meter.progress)


def _identity(*examiners: Examiner) -> str:
    """Return a digest of what is measured and how, so that other measurements are not compared."""
    digest = blake2b(digest_size=16)
    for examiner in examiners:
        digest.update(repr((tuple(examiner.timesteps), examiner.maker.seed)).encode())
        for portion in examiner.portions:
            for use in portion.step.uses:
                item = examiner.maker.items[use.placement]
                facts = (item.key, item.caption, item.latents)
                digest.update(repr(facts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
