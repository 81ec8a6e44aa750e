"""`sdft convert`: a model from any file form to any other, copied block by block.

In: a model's path and what the copy should be. Out: the copy, whole or not at all, and a record
of it. Weights are never held in memory as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sdft.errors import DataError, UserError
from sdft.events import Emit, Notice, StageFinished, StageProgress, StageStarted
from sdft.export.diffusers_folder import write_diffusers_folder
from sdft.export.metadata import converted_metadata
from sdft.export.single_file import write_single_file
from sdft.files import swap, unfinished_name
from sdft.formats.tensor_file import PICKLE, SAFETENSORS
from sdft.jobs.hypernetworks import convert_hypernetwork, dtypes_of_file, family_of
from sdft.models.family import SD2_BASE, SD2_GENERATION, Family, settle_family
from sdft.models.hypernetwork_file import PT, is_hypernetwork
from sdft.models.open import open_model
from sdft.models.source import DIFFUSERS, DIFFUSERS_SAFETENSORS, PARTS, TITLES, ModelSource

STAGE = "convert"
PROGRESS_BYTES = 64 * 2**20
"""An event for each so many bytes."""

_PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_FOLDER_FORMS = (DIFFUSERS, DIFFUSERS_SAFETENSORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    source: Path
    destination: Path
    form: str
    family: str
    prediction_type: str | None
    """None where neither the file nor the person said it and the copy need not know."""
    dtypes: Mapping[str, tuple[str, ...]]
    """Of each network in the copy, by safetensors' names."""
    size_bytes: int
    duration_s: float
    notices: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"problems": []}


def run_convert(
    source: Path,
    destination: Path,
    *,
    form: str | None = None,
    save_precision: str | None = None,
    vae: Path | None = None,
    ema: str = "drop",
    variant: str | None = None,
    v2: bool | None = None,
    v_parameterization: bool | None = None,
    prediction_type: str | None = None,
    metadata: Mapping[str, str] | None = None,
    epoch: int | None = None,
    global_step: int | None = None,
    with_hash: bool = True,
    overwrite: bool = False,
    emit: Emit,
) -> ConvertResult:
    """Convert a model.

    `form` is one of `safetensors`, `ckpt`, `diffusers`, `diffusers_safetensors`; None takes it
    from the destination's name. `ema` is `use` (the running averages become the U-Net) or `drop`.
    `prediction_type` (`epsilon`, `v_prediction`) says what the model predicts, against what its
    file says. `metadata` is added to the copy's. `epoch` and `global_step` are the counters of a
    .ckpt; None keeps the source's.
    Raises: UserError, DataError, EnvironmentFault; then nothing has been written.
    """
    started_s = time.monotonic()
    if is_hypernetwork(source):
        of_models = {
            "vae": vae,
            "ema": ema == "use",
            "variant": variant,
            "v2": v2,
            "v_parameterization": v_parameterization,
            "prediction_type": prediction_type,
            "epoch": epoch,
        }
        _require_no_option(source, [name for name, given in of_models.items() if given])
        _require_free(destination, PICKLE, [source], overwrite=overwrite)
        copy, size_bytes, notices = convert_hypernetwork(
            source,
            destination,
            form=form,
            save_precision=save_precision,
            metadata=metadata,
            global_step=global_step,
            with_hash=with_hash,
            emit=emit,
        )
        return ConvertResult(
            source=source,
            destination=destination,
            form=copy.form,
            family=family_of(copy),
            prediction_type=None,
            dtypes={"hypernetwork": dtypes_of_file(copy)},
            size_bytes=size_bytes,
            duration_s=time.monotonic() - started_s,
            notices=notices,
        )
    if form == PT:
        raise UserError(
            what="pt is the form of a hypernetwork, and this is none",
            where=str(source),
            fix="choose ckpt or safetensors",
        )
    form = form or form_of_name(destination)
    model = open_model(source, vae_path=vae, variant=variant)
    _require_free(destination, form, [source] + ([vae] if vae else []), overwrite=overwrite)
    told = list(_what_stays_behind(model, ema))
    if ema == "use":
        model = model.with_ema()
    model.check()
    model = _without_unexpected(model)
    family, prediction, notices = _settle(
        model, form, v2=v2, v_parameterization=v_parameterization, asked=prediction_type
    )
    told += notices
    for message in told:
        emit(Notice(severity="warning", topic=STAGE, message=message))
    texts = converted_metadata(model.metadata, family, prediction, title=destination.stem)
    counters = {"epoch": epoch, "global_step": global_step}
    scalars = dict(model.scalars) | {k: v for k, v in counters.items() if v is not None}
    progress = _Progress(emit, _num_bytes(model))
    size_bytes = _write(
        model,
        destination,
        form=form,
        family=family,
        prediction=prediction,
        save_precision=save_precision,
        metadata=texts | dict(metadata or {}),
        scalars=scalars,
        with_hash=with_hash,
        progress=progress,
    )
    progress.finish()
    written = open_model(destination)
    written.check()
    return ConvertResult(
        source=source,
        destination=destination,
        form=written.form,
        family=family.name,
        prediction_type=prediction,
        dtypes={part: dtypes_of(written, part) for part in PARTS},
        size_bytes=size_bytes,
        duration_s=time.monotonic() - started_s,
        notices=tuple(told),
    )


def _require_no_option(source: Path, names: list[str]) -> None:
    """Raises: UserError where an option is given that says nothing about a hypernetwork."""
    if names:
        raise UserError(
            what=f"{', '.join(names)} is about models, and this is a hypernetwork",
            where=str(source),
            fix="leave it out",
        )


def form_of_name(destination: Path) -> str:
    """Return the form that a destination's name asks for.

    Raises: UserError for an ending that says nothing.
    """
    suffix = destination.suffix.lower()
    if destination.is_dir() or not suffix or suffix.removeprefix(".").isdigit():
        # The .5 of a folder sd-v1.5 is no ending.
        return DIFFUSERS_SAFETENSORS
    if suffix == ".safetensors":
        return SAFETENSORS
    if suffix in _PICKLE_SUFFIXES:
        return PICKLE
    raise UserError(
        what=f"the ending {suffix} does not say what to write",
        where=str(destination),
        fix="end it with .safetensors or .ckpt, take a name without an ending for a diffusers "
        "folder, or say --save_model_as",
    )


def dtypes_of(model: ModelSource, part: str) -> tuple[str, ...]:
    """Return the different dtypes of a network's tensors, in order."""
    return tuple(sorted({tensor.dtype for tensor in model.weights.get(part, {}).values()}))


def _settle(
    model: ModelSource,
    form: str,
    *,
    v2: bool | None,
    v_parameterization: bool | None,
    asked: str | None,
) -> tuple[Family, str | None, tuple[str, ...]]:
    stated = asked or model.stated_prediction
    nothing_known = stated is None and v_parameterization is None and v2 is None
    if model.generation == SD2_GENERATION and nothing_known and form not in _FOLDER_FORMS:
        # One file need not know it. Its networks and names are the same for both kinds.
        notice = (
            "nothing says whether this SD 2.x predicts v or noise; the copy does not say either"
        )
        return SD2_BASE, None, (notice,)
    return settle_family(
        model.generation,
        stated,
        v2=v2,
        v_parameterization=v_parameterization,
        where=str(model.path),
    )


def _what_stays_behind(model: ModelSource, ema: str) -> list[str]:
    messages = []
    if model.ema and ema == "drop":
        messages.append(f"{len(model.ema)} EMA tensors are left out; --ema use takes them instead")
    if model.left_out:
        messages.append(f"left out, because no model needs it: {', '.join(model.left_out)}")
    for part, names in model.unexpected().items():
        messages.append(
            f"{len(names)} tensors that no {TITLES[part]} has are left out: {', '.join(names[:5])}"
        )
    return messages


def _without_unexpected(model: ModelSource) -> ModelSource:
    weights = {}
    for part, tensors in model.weights.items():
        expected = model.sizes(part).tensors()
        weights[part] = {name: t for name, t in tensors.items() if name in expected}
    return replace(model, weights=weights)


def _require_free(destination: Path, form: str, read: Sequence[Path], *, overwrite: bool) -> None:
    """Raises: UserError where writing would destroy something that nobody offered."""
    target = destination.resolve()
    is_folder = form in _FOLDER_FORMS
    if not destination.exists():
        for path in read:
            if path.is_dir() and target.is_relative_to(path.resolve()) and is_folder:
                raise UserError(
                    what="the copy would lie inside the model that it is made from",
                    where=str(destination),
                    fix="choose a place outside of it",
                )
        return
    if is_folder != destination.is_dir():
        kind = "a folder" if destination.is_dir() else "a file"
        raise UserError(
            what=f"this is {kind}, and the copy would be {'a folder' if is_folder else 'a file'}",
            where=str(destination),
            fix="choose another name",
        )
    if not overwrite:
        same = any(target == path.resolve() for path in read)
        raise UserError(
            what="source and destination are the same" if same else "this exists already",
            where=str(destination),
            fix="choose another name, or say --overwrite",
            key="exists_already",
        )
    if is_folder and not (destination / "model_index.json").is_file():
        raise UserError(
            what="this folder is no diffusers model, so it is not overwritten",
            where=str(destination),
            fix="choose another name, or remove it yourself",
        )
    for path in read:
        if is_folder and path.resolve() != target and path.resolve().is_relative_to(target):
            raise UserError(
                what=f"overwriting this folder would remove {path}, which is read",
                where=str(destination),
                fix="choose another name",
            )


def _write(
    model: ModelSource,
    destination: Path,
    *,
    form: str,
    family: Family,
    prediction: str | None,
    save_precision: str | None,
    metadata: Mapping[str, str],
    scalars: Mapping[str, Any],
    with_hash: bool,
    progress: _Progress,
) -> int:
    def refuse_overflow(name: str) -> None:
        raise DataError(
            what=f'"{name}" has numbers that are too large for fp16',
            where=str(model.path),
            fix="choose --save_precision bf16 or float",
        )

    if form not in _FOLDER_FORMS:
        return write_single_file(
            destination,
            weights=model.weights,
            extras=model.extras,
            family=family,
            save_precision=save_precision,
            form=form,
            metadata=metadata,
            scalars=scalars,
            with_hash=with_hash,
            on_overflow=refuse_overflow,
            on_bytes=progress.add,
        )
    assert prediction is not None, "settled for folders"
    configs = {part: model.config(part, family) for part in PARTS}
    if "scheduler" in model.given_configs:
        configs["scheduler"] = model.given_configs["scheduler"]
    # Beside the old folder until it is whole; then the two change places.
    new = unfinished_name(destination) if destination.exists() else destination
    size_bytes = write_diffusers_folder(
        new,
        weights=model.weights,
        extras=model.extras,
        configs=configs,
        family=family,
        prediction_type=prediction,
        safetensors=form == DIFFUSERS_SAFETENSORS,
        save_precision=save_precision,
        metadata=metadata,
        scalars=scalars,
        on_overflow=refuse_overflow,
        on_bytes=progress.add,
    )
    if new != destination:
        swap(new, destination)
    return size_bytes


def _num_bytes(model: ModelSource) -> int:
    tables = [*model.weights.values(), model.extras]
    return sum(tensor.num_bytes for tensors in tables for tensor in tensors.values())


class _Progress:
    """Tells how many bytes are written, in steps that are worth an event."""

    def __init__(self, emit: Emit, total: int) -> None:
        self._emit = emit
        self._done = 0
        self._told = 0
        self._started_s = time.monotonic()
        emit(StageStarted(stage=STAGE, total=total, unit="B"))

    def add(self, num_bytes: int) -> None:
        self._done += num_bytes
        if self._done - self._told >= PROGRESS_BYTES:
            self._told = self._done
            self._emit(StageProgress(stage=STAGE, done=self._done))

    def finish(self) -> None:
        duration_s = time.monotonic() - self._started_s
        self._emit(StageFinished(stage=STAGE, done=self._done, duration_s=duration_s))
