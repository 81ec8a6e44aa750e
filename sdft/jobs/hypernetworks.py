"""What commands do with a hypernetwork file: put it into a model, convert it, verify it.

In: paths. Out: results and files. Brings torch only where weights are used.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft.config.merge import missing_path
from sdft.errors import DataError, Problem, UserError
from sdft.events import Emit, Notice, StageFinished, StageStarted
from sdft.export.hypernetwork import write_hypernetwork
from sdft.formats.safetensors_header import read_header
from sdft.formats.safetensors_write import HASH_KEY
from sdft.formats.tensor_file import SAFETENSORS
from sdft.models.finite import count_not_finite
from sdft.models.hypernetwork_file import PT, HypernetworkFile, read_hypernetwork

if TYPE_CHECKING:
    from sdft.models.bundle import ModelBundle

STAGE = "hypernetwork"
_PT_SUFFIXES = (".pt", ".ckpt", ".pth", ".bin")


def use_hypernetworks(
    bundle: ModelBundle, wanted: Sequence[tuple[Path, float]], *, emit: Emit
) -> None:
    """Put hypernetworks into a model, in order, each with its strength.

    Raises: UserError where one is not there or was made for another family; DataError where a file
        is no hypernetwork.
    """
    # Heavy: brings torch and diffusers.
    from sdft.models.hypernetwork import apply_hypernetworks, load_hypernetwork, usable_widths

    networks = []
    for path, strength in wanted:
        missing = missing_path(path, "file")
        if missing:
            raise UserError(what=missing[0], where="--hypernetwork", fix=missing[1])
        file = read_hypernetwork(path)
        used = usable_widths(file, bundle.unet)
        for message in told_of(file, used):
            emit(Notice(severity="warning", topic=STAGE, message=message))
        network = load_hypernetwork(file, widths=used, multiplier=strength)
        networks.append(network.to(bundle.unet.device))
    apply_hypernetworks(bundle.unet, networks)


def told_of(file: HypernetworkFile, used: Sequence[int]) -> list[str]:
    """Return what of a file has no place in the model."""
    unused = [str(width) for width in file.widths if width not in used]
    what = f"{file.path.name}: its modules for {', '.join(unused)} are not used"
    return [what] if unused else []


def form_of_file_name(path: Path) -> str:
    """Return the form that a destination's name asks for: `pt` or `safetensors`.

    Raises: UserError.
    """
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return SAFETENSORS
    if suffix in _PT_SUFFIXES:
        return PT
    raise UserError(
        what="a hypernetwork is one file, and the ending does not say of which form",
        where=str(path),
        fix="end it with .pt or .safetensors",
    )


def convert_hypernetwork(
    source: Path,
    destination: Path,
    *,
    form: str | None,
    save_precision: str | None,
    metadata: Mapping[str, str] | None,
    global_step: int | None,
    with_hash: bool,
    emit: Emit,
) -> tuple[HypernetworkFile, int, tuple[str, ...]]:
    """Write a hypernetwork in another form.

    Return the copy, its size in bytes, and what a person should know. `global_step` takes the
    place of the steps that the file says.
    Raises: UserError for a form that a hypernetwork cannot have; DataError where the source is
        damaged, or has numbers that are too large for fp16.
    """
    form = {"ckpt": PT}.get(form or "", form) or form_of_file_name(destination)
    if form not in (PT, SAFETENSORS):
        raise UserError(
            what=f"a hypernetwork cannot be written as {form}",
            where="--save_model_as",
            fix="choose pt or safetensors",
        )
    started_s = time.monotonic()
    file = read_hypernetwork(source)
    told: tuple[str, ...] = ()
    if file.left_out:
        told = (f"left out, because no field of that name is known: {', '.join(file.left_out)}",)
        emit(Notice(severity="warning", topic=STAGE, message=told[0]))
    size = sum(tensor.num_bytes for tensor in file.tensors().values())
    emit(StageStarted(stage="convert", total=size, unit="B"))

    def refuse_overflow(name: str) -> None:
        raise DataError(
            what=f'"{name}" has numbers that are too large for fp16',
            where=str(source),
            fix="choose --save_precision bf16 or float",
        )

    kept = {key: text for key, text in file.metadata.items() if key != HASH_KEY}
    size_bytes = write_hypernetwork(
        destination,
        file.tensors(),
        file.fields if global_step is None else replace(file.fields, step=global_step),
        form=form,
        save_precision=save_precision,
        metadata=kept | dict(metadata or {}),
        with_hash=with_hash,
        on_overflow=refuse_overflow,
    )
    emit(StageFinished(stage="convert", done=size, duration_s=time.monotonic() - started_s))
    return read_hypernetwork(destination), size_bytes, told


def family_of(file: HypernetworkFile) -> str:
    """Return the generation whose text has a width that only this file has; else `unknown`."""
    is_sd1, is_sd2 = 768 in file.widths, 1024 in file.widths
    if is_sd1 == is_sd2:
        return "unknown"
    return "sd1" if is_sd1 else "sd2"


def dtypes_of_file(file: HypernetworkFile) -> tuple[str, ...]:
    return tuple(sorted({tensor.dtype for tensor in file.tensors().values()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetworkVerifyResult:
    """What a hypernetwork file was found to be."""

    file: HypernetworkFile
    sha256: str
    hash_matches: bool | None
    """Whether the tensors have the hash that the metadata says; None where it says none."""
    problems: tuple[Problem, ...]

    def as_json(self) -> dict[str, Any]:
        file = self.file
        return {
            "path": str(file.path),
            "form": file.form,
            "kind": "hypernetwork",
            "family": family_of(file),
            "widths": list(file.widths),
            "fields": file.fields.as_plain(),
            "parameters": sum(tensor.num_elements for tensor in file.tensors().values()),
            "dtypes": list(dtypes_of_file(file)),
            "left_out": list(file.left_out),
            "metadata": dict(file.metadata),
            "sha256": {file.path.name: self.sha256},
            "hash_matches": self.hash_matches,
            "problems": [problem.as_json() for problem in self.problems],
        }

    def words(self) -> str:
        """Say it in a few lines."""
        file, fields = self.file, self.file.fields
        tensors = file.tensors()
        count = sum(tensor.num_elements for tensor in tensors.values())
        base = fields.sd_checkpoint_name or "it does not say on which model"
        hashed = f" [{fields.sd_checkpoint}]" if fields.sd_checkpoint else ""
        lines = [
            f"{file.path}",
            f'  hypernetwork "{fields.name}", {file.form}, {fields.step} steps',
            f"  structure: {fields.structure.words()}; began {fields.weight_initialization}",
            f"  widths: {', '.join(map(str, file.widths))}",
            f"  {len(tensors)} tensors, {count:,} values, {', '.join(dtypes_of_file(file))}",
            f"  trained on: {base}{hashed}",
            f"  sha256 {self.sha256}  {file.path.name}",
        ]
        if file.left_out:
            lines.append(f"  not known: {', '.join(file.left_out)}")
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join([*lines, "whole" if not self.problems else "NOT WHOLE"])


def verify_hypernetwork(path: Path, *, emit: Emit) -> HypernetworkVerifyResult:
    """Read a whole hypernetwork and tell what it is and what is wrong with it.

    Raises: DataError where it is damaged so that nothing can be told.
    """
    started_s = time.monotonic()
    file = read_hypernetwork(path)
    size = path.stat().st_size
    emit(StageStarted(stage="verify", total=size, unit="B"))
    problems = []
    for name, tensor in file.tensors().items():
        num_nan, num_infinite = count_not_finite(tensor)
        if num_nan or num_infinite:
            what = f'"{name}" has {num_nan} values that are no number, {num_infinite} infinite'
            problems.append(Problem(what, str(path), "use an earlier save"))
    matches = _hash_matches(file)
    if matches is False:
        what = "the tensors are not those that the hash in the metadata was made of"
        problems.append(Problem(what, str(path), "download or convert it again"))
    digest = _sha256(path)
    emit(StageFinished(stage="verify", done=size, duration_s=time.monotonic() - started_s))
    return HypernetworkVerifyResult(
        file=file, sha256=digest, hash_matches=matches, problems=tuple(problems)
    )


def _hash_matches(file: HypernetworkFile) -> bool | None:
    said = file.metadata.get(HASH_KEY)
    if said is None or file.form != SAFETENSORS:
        return None
    found = _sha256(file.path, start=read_header(file.path).data_start)
    return said.lower().removeprefix("0x") == found


def _sha256(path: Path, start: int = 0) -> str:
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.file_digest(file, "sha256").hexdigest()
