"""`sdft verify`: whether a model, the checkpoint of a run, or a cache is whole.

In: a path. Out, for a model: its family, sizes and dtypes, every value that is no number, every
tensor that is missing or too many, and hashes. All weights are read block by block. For a cache:
what its every byte was found to be.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdft.cache.remote_upkeep import verify_remote
from sdft.cache.upkeep import StoreReport, find_stores, verify_store
from sdft.errors import Problem, UserError
from sdft.events import Emit, StageFinished, StageProgress, StageStarted
from sdft.formats.lazy import BLOCK_BYTES
from sdft.formats.safetensors_header import read_header
from sdft.formats.safetensors_write import HASH_KEY
from sdft.formats.tensor_file import SAFETENSORS
from sdft.jobs.hypernetworks import HypernetworkVerifyResult, verify_hypernetwork
from sdft.jobs.verify_run import RunVerifyResult, is_state, verify_run
from sdft.models.facts import ModelFacts, PartFacts, facts_of
from sdft.models.finite import count_not_finite
from sdft.models.hypernetwork_file import is_hypernetwork
from sdft.models.open import open_model
from sdft.models.source import TITLES, ModelSource
from sdft.rundir import RunDir
from sdft.units import format_bytes
from sdft.urls import UrlPath

STAGE = "verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    facts: ModelFacts
    sha256: Mapping[str, str]
    """Of each file, by its name within the model."""
    hash_matches: bool | None
    """Whether the tensors have the hash that the metadata says; None where it says none."""
    problems: tuple[Problem, ...]

    def as_json(self) -> dict[str, Any]:
        facts = self.facts
        return {
            "path": str(facts.path),
            "form": facts.form,
            "family": facts.family,
            "title": facts.title,
            "prediction_type": facts.prediction_type,
            "parts": {part: asdict(told) for part, told in facts.parts.items()},
            "parameters": sum(told.num_parameters for told in facts.parts.values()),
            "ema_tensors": facts.num_ema_tensors,
            "extras": list(facts.extras),
            "unexpected": {part: list(names) for part, names in facts.unexpected.items()},
            "left_out": list(facts.left_out),
            "metadata": dict(facts.metadata),
            "sha256": dict(self.sha256),
            "hash_matches": self.hash_matches,
            "problems": [problem.as_json() for problem in self.problems],
        }

    def words(self) -> str:
        """Say it in a few lines."""
        facts = self.facts
        predicts = facts.prediction_type or "it does not say what"
        lines = [f"{facts.path}", f"  {facts.title}, {facts.form}, predicts {predicts}"]
        lines += [f"  {TITLES[part]}: {_sizes(told)}" for part, told in facts.parts.items()]
        if facts.num_ema_tensors:
            lines.append(f"  EMA: {facts.num_ema_tensors} tensors")
        if facts.extras:
            lines.append(f"  beside the networks: {len(facts.extras)} tensors")
        for part, names in facts.unexpected.items():
            lines.append(f"  not part of a {TITLES[part]}: {', '.join(names)}")
        lines += [f"  sha256 {digest}  {name}" for name, digest in self.sha256.items()]
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join([*lines, "whole" if not self.problems else "NOT WHOLE"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheVerifyResult:
    path: Path
    stores: Mapping[Path, StoreReport]

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(problem for report in self.stores.values() for problem in report.problems)

    def as_json(self) -> dict[str, Any]:
        stores = [
            {
                "path": str(path),
                "shards": report.shards,
                "entries": report.entries,
                "size_bytes": report.size_bytes,
            }
            for path, report in self.stores.items()
        ]
        problems = [problem.as_json() for problem in self.problems]
        return {"path": str(self.path), "stores": stores, "problems": problems}

    def words(self) -> str:
        """Say it in a few lines."""
        lines = [
            f"{path}: {report.entries} entries, {format_bytes(report.size_bytes)}"
            for path, report in self.stores.items()
        ]
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join([*lines, "whole" if not self.problems else "NOT WHOLE"])


def run_verify(
    path: Path, *, emit: Emit
) -> VerifyResult | HypernetworkVerifyResult | CacheVerifyResult | RunVerifyResult:
    """Look at what is at a path: a cache, a run or one of its states, a model, a hypernetwork.

    Raises: UserError where there is nothing; DataError where it is none of these.
    """
    if isinstance(path, UrlPath):
        return _verify_remote(path, emit=emit)
    stores = find_stores(path)
    if stores:
        reports = {store.folder: verify_store(store, emit=emit) for store in stores}
        return CacheVerifyResult(path=path, stores=reports)
    if path.is_dir() and (is_state(path) or RunDir(path).read_status() is not None):
        return verify_run(path, emit=emit)
    return verify_weights(path, emit=emit)


def _verify_remote(url: UrlPath, *, emit: Emit) -> CacheVerifyResult:
    reports = verify_remote(str(url), emit=emit)
    if not reports:
        raise UserError(
            what="there is no cache here",
            where=str(url),
            fix="of what lies in an object store only a cache is looked at; fetch a model first",
        )
    return CacheVerifyResult(path=url, stores=reports)


def verify_weights(path: Path, *, emit: Emit) -> VerifyResult | HypernetworkVerifyResult:
    """Read what training makes, a model or a hypernetwork.

    Raises: UserError where there is nothing; DataError where it is neither.
    """
    if is_hypernetwork(path):
        return verify_hypernetwork(path, emit=emit)
    return verify_model(path, emit=emit)


def verify_model(path: Path, *, emit: Emit) -> VerifyResult:
    """Read a whole model and tell what it is and what is wrong with it.

    Raises: UserError where there is nothing; DataError where it is no model at all.
    """
    started_s = time.monotonic()
    model = open_model(path)
    facts = facts_of(model)
    files = _files(path)
    emit(StageStarted(stage=STAGE, total=sum(file.stat().st_size for file in files), unit="B"))
    digests: dict[str, str] = {}
    done = 0
    problems = list(facts.problems)
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        digests[name] = _sha256(file)
        done += file.stat().st_size
        emit(StageProgress(stage=STAGE, done=done))
    problems += _not_finite(model)
    matches = _hash_matches(path, model)
    if matches is False:
        what = "the tensors are not those that the hash in the metadata was made of"
        problems.append(Problem(what=what, where=str(path), fix="download or convert it again"))
    emit(StageFinished(stage=STAGE, done=done, duration_s=time.monotonic() - started_s))
    return VerifyResult(facts=facts, sha256=digests, hash_matches=matches, problems=tuple(problems))


def _sizes(told: PartFacts) -> str:
    return f"{told.num_tensors} tensors, {told.num_parameters:,} values, {', '.join(told.dtypes)}"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    weights = (".safetensors", ".bin")
    return sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in weights)


def _not_finite(model: ModelSource) -> list[Problem]:
    tables = {TITLES[part]: tensors for part, tensors in model.weights.items()}
    tables |= {"EMA": model.ema, "beside the networks": model.extras}
    found = []
    for title, tensors in tables.items():
        for name, tensor in tensors.items():
            num_nan, num_infinite = count_not_finite(tensor)
            if num_nan or num_infinite:
                what = f'"{name}" has {num_nan} values that are no number, {num_infinite} infinite'
                where = f"{model.path}, {title}"
                found.append(Problem(what=what, where=where, fix="use an earlier checkpoint"))
    return found


def _hash_matches(path: Path, model: ModelSource) -> bool | None:
    said = model.metadata.get(HASH_KEY)
    if said is None or model.form != SAFETENSORS:
        return None
    return said.lower().removeprefix("0x") == _sha256(path, start=read_header(path).data_start)


def _sha256(path: Path, start: int = 0) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while num_bytes := file.readinto(buffer):
            digest.update(buffer[:num_bytes])
    return digest.hexdigest()
