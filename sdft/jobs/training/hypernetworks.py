"""Trains a hypernetwork: what differs from training a model.

In: settings, a loaded bundle, the accelerator. Out: Networks whose trained weights are the
hypernetwork's alone, and what writes them as a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor
from torch.nn import Module

from sdft.config.training import TrainingSettings
from sdft.config.training_network import NetworkSettings
from sdft.errors import UserError
from sdft.events import Emit, Notice
from sdft.export.hypernetwork import write_hypernetwork
from sdft.formats.tensor_file import SAFETENSORS
from sdft.jobs.training.device_use import DeviceUse, use_device
from sdft.jobs.training.groups import groups_of, one_rate
from sdft.jobs.training.machine import weight_dtype
from sdft.jobs.training.networks import Networks, text_reader
from sdft.jobs.training.preparing import make_average, make_optimizer
from sdft.jobs.training.saving import ModelWriter, chosen_form, metadata_of
from sdft.jobs.training.wishes import average_wishes, chunk_wishes, trained_precision
from sdft.models.bundle import ModelBundle
from sdft.models.checkpoint import MemoryTensors
from sdft.models.hypernetwork import (
    Hypernetwork,
    RandomPasses,
    apply_hypernetworks,
    context_widths,
    load_hypernetwork,
    new_hypernetwork,
    usable_widths,
)
from sdft.models.hypernetwork_file import (
    PT,
    HypernetworkFields,
    HypernetworkFile,
    read_hypernetwork,
)
from sdft.train.optim import finds_rate
from sdft.train.optimizer_words import parse_arguments
from sdft.train.plain_tensors import on_cpu, tensor_bytes
from sdft.train.scaler import LossScaler
from sdft.train.state import Progress
from sdft.train.state_write import require_finite

_PREFIX = "hypernetwork."

_SHORT_HASH_DIGITS = 10
"""Of the SHA-256 of a base model's file, as the web UI shows it."""


def hypernetwork_of(
    settings: TrainingSettings,
    bundle: ModelBundle,
    accelerator: Accelerator,
    use: DeviceUse,
    emit: Emit,
) -> Networks:
    """Freeze the model, put a hypernetwork into its U-Net, and give that an optimizer.

    Raises: UserError where the file to go on from does not fit; DataError where it is none; what
        `build_optimizer` raises.
    """
    network = _network(settings, bundle, emit)
    precision = trained_precision(settings, accelerator, emit)
    frozen_dtype = weight_dtype(accelerator.mixed_precision)
    # In training mode, without which diffusers computes nothing twice; an SD has no dropout.
    unet = bundle.unet.train().requires_grad_(False)
    text_encoder = bundle.text_encoder.eval().requires_grad_(False)
    # Before the optimizer is made: its state follows device and dtype of the weights.
    for module in (unet, text_encoder):
        Module.to(module, accelerator.device, frozen_dtype)
    network.to(accelerator.device, precision.weights).train().requires_grad_(True)
    apply_hypernetworks(unet, [network])
    passes = None
    if network.structure.is_random:
        passes = RandomPasses(network, seed=settings.seed or 0, rank=accelerator.process_index)
        passes.before(unet)
    named = {_PREFIX + name: weight for name, weight in network.named_parameters()}
    rates = dict.fromkeys(named, settings.learning_rate)
    if finds_rate(settings.optimizer_type):
        rates = one_rate(rates, settings.optimizer_type, emit)
    groups = groups_of(named, rates)
    parameters = tuple(named.values())
    use_device(unet, None, use)
    optimizer, rounding, fused = make_optimizer(
        settings.optimizer_type,
        groups,
        parameters,
        lr=settings.learning_rate,
        arguments=parse_arguments(settings.optimizer_args, where="optimizer_args"),
        stochastic_rounding=precision.stochastic_rounding,
        chunks=chunk_wishes(settings),
        seed=settings.seed or 0,
        emit=emit,
    )
    # Nothing of the U-Net itself is trained, so it exchanges nothing with other processes.
    prepared = accelerator.prepare_model(unet, evaluation_mode=True)
    optimizer = accelerator.prepare(optimizer)
    return Networks(
        bundle=bundle,
        accelerator=accelerator,
        unet=prepared,
        text_encoder=text_encoder,
        trains_text=False,
        optimizer=optimizer,
        parameters=parameters,
        encode_text=text_reader(bundle, text_encoder, clip_skip=settings.clip_skip, trains=False),
        precision=replace(precision, weights=frozen_dtype),
        scaler=LossScaler() if precision.scales_loss else None,
        rounding=rounding,
        fused=fused,
        average=make_average(average_wishes(settings), named, accelerator),
        hypernetwork=network,
        random_passes=passes,
    )


def _network(settings: TrainingSettings, bundle: ModelBundle, emit: Emit) -> Hypernetwork:
    widths = context_widths(bundle.unet)
    if settings.network_weights is None:
        network = new_hypernetwork(
            widths,
            new_fields(settings).structure,
            initialization=settings.weight_initialization,
            multiplier=settings.network_mul,
            seed=settings.seed or 0,
        )
    else:
        file = read_hypernetwork(settings.network_weights)
        _require_same_layers(settings, file)
        used = usable_widths(file, bundle.unet)
        _tell_of_widths(file, used, widths, emit)
        network = load_hypernetwork(file, widths=used, multiplier=settings.network_mul)
    count = sum(weight.numel() for weight in network.parameters())
    message = (
        f"a hypernetwork is trained: {network.structure.words()}, for the widths"
        f" {', '.join(map(str, network.widths))}, {count:,} weights; the model stays as it is"
    )
    emit(Notice(severity="info", topic="hypernetwork", message=message))
    return network


def new_fields(settings: TrainingSettings) -> HypernetworkFields:
    """Return the fields of a hypernetwork that has not been trained yet."""
    return HypernetworkFields(
        layer_structure=settings.layer_structure,
        activation_func=settings.activation_func,
        is_layer_norm=settings.add_layer_norm,
        weight_initialization=settings.weight_initialization,
        use_dropout=settings.use_dropout,
        activate_output=settings.activate_output,
        last_layer_dropout=settings.last_layer_dropout,
        dropout_structure=settings.dropout_structure or None,
    )


def _require_same_layers(settings: TrainingSettings, file: HypernetworkFile) -> None:
    """Check that no setting asks for other layers than the file has.

    Raises: UserError.
    """
    in_file = file.fields
    has = {
        "layer_structure": in_file.layer_structure,
        "activation_func": in_file.activation_func,
        "activate_output": in_file.activate_output,
        "add_layer_norm": in_file.is_layer_norm,
        "use_dropout": in_file.use_dropout,
        "dropout_structure": in_file.structure.dropout,
        "last_layer_dropout": in_file.last_layer_dropout,
    }
    for name, value in has.items():
        asked = getattr(settings, name)
        if asked not in (NetworkSettings.model_fields[name].default, value):
            raise UserError(
                what=f"{name} is {_shown(asked)}, and this hypernetwork has {_shown(value)}",
                where=str(file.path),
                fix=f"remove {name}, or start a new hypernetwork without network_weights",
            )


def _shown(value: object) -> str:
    return ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else str(value)


def _tell_of_widths(
    file: HypernetworkFile, used: tuple[int, ...], known: tuple[int, ...], emit: Emit
) -> None:
    """Say which modules of a file have no place here, and which attention stays as it is."""
    unused = [str(width) for width in file.widths if width not in used]
    bare = [str(width) for width in known if width not in used]
    words = [f"its modules for {', '.join(unused)} are not used and not kept"] if unused else []
    words += [f"it has none for {', '.join(bare)}"] if bare else []
    if words:
        message = f"{file.path.name}: {'; '.join(words)}"
        emit(Notice(severity="warning", topic="hypernetwork", message=message))


@dataclass(frozen=True, kw_only=True)
class HypernetworkContent:
    """The weights of a hypernetwork at one moment."""

    weights: Mapping[str, Tensor]
    step: int
    is_copy: bool = False
    """Whether the tensors are its own, so that training does not change them."""

    @property
    def num_bytes(self) -> int:
        """Return what a copy takes, 0 where this is one."""
        return 0 if self.is_copy else tensor_bytes([dict(self.weights)])

    def copied(self) -> HypernetworkContent:
        if self.is_copy:
            return self
        return replace(self, weights=on_cpu(self.weights), is_copy=True)


@dataclass(frozen=True, kw_only=True)
class HypernetworkWriter:
    """Writes the hypernetwork as it is when it is called."""

    networks: Networks
    settings: TrainingSettings
    form: str
    resolution: tuple[int, int]
    """Of the first dataset, for the file's metadata."""
    first_fields: HypernetworkFields
    """What the run began with: a file's, or those of a new hypernetwork."""

    def content(self, progress: Progress) -> HypernetworkContent:
        """Return the weights as they are now: a moving average where there is one."""
        assert self.networks.hypernetwork is not None
        step = self.first_fields.step + progress.step
        live = HypernetworkContent(weights=self.networks.hypernetwork.state_dict(), step=step)
        if not self.networks.saves_other_weights:
            return live
        with self.networks.evaluation_weights():
            return live.copied()

    def __call__(self, path: Path, content: HypernetworkContent) -> int:
        """Write to `path`; return the size in bytes.

        Raises: DataError where a weight is no number.
        """
        require_finite({"hypernetwork": content.weights}, what_for=path.name)
        bundle = self.networks.bundle
        metadata = metadata_of(self.settings, bundle, self.resolution, path)
        architecture = f"{bundle.family.modelspec_architecture}/hypernetwork"
        return write_hypernetwork(
            path,
            MemoryTensors(content.weights).all_lazy(),
            replace(
                self.first_fields,
                step=content.step,
                name=self.settings.output_name or path.stem,
                sd_checkpoint=self._base_hash,
                sd_checkpoint_name=bundle.path.stem,
            ),
            form=self.form,
            save_precision=self.settings.save_precision,
            metadata=metadata | {"modelspec.architecture": architecture},
        )

    @cached_property
    def _base_hash(self) -> str | None:
        """Short hash of the base model's file; none for a folder, or where it is gone by now."""
        try:
            with self.networks.bundle.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:_SHORT_HASH_DIGITS]
        except OSError:
            return None


def checkpoint_writer(
    settings: TrainingSettings, networks: Networks, resolution: tuple[int, int]
) -> ModelWriter | HypernetworkWriter:
    """Return what writes the run's checkpoints: of the model, or of its hypernetwork."""
    if networks.hypernetwork is None:
        form = chosen_form(settings, networks.bundle)
        return ModelWriter(networks=networks, settings=settings, form=form, resolution=resolution)
    first = settings.network_weights
    assert settings.save_model_as in (None, PT, SAFETENSORS), "the check of the settings asks"
    return HypernetworkWriter(
        networks=networks,
        settings=settings,
        form=settings.save_model_as or PT,
        resolution=resolution,
        first_fields=new_fields(settings) if first is None else read_hypernetwork(first).fields,
    )
