"""`sdft bench`: how fast the engine is here, beside the bare minimum for the same work.

In: settings and what to measure. Out: rows. Models have the published sizes and random weights,
made in memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft.config.training import TrainingSettings
from sdft.errors import EnvironmentFault, UnknownName, UserError, nearest
from sdft.events import Emit, Notice, SettingChosen, StageFinished, StageProgress, StageStarted

if TYPE_CHECKING:
    import torch

    from sdft.jobs.benching.figures import BenchRow

ALL = "all"
STAGE_NAMES = ("data", "encode", "step", "save")
TOY = "toy"
FAMILY_OF: Mapping[str, str] = {"sd1": "sd1", "sd2": "sd2-base", "sd2-v": "sd2-v", TOY: "sd1"}
"""What can be asked for, and the family whose sizes or topology it has."""

SMALL_PX = 128
"""On a CPU, where a full-size step at 512 px takes half a minute."""

MULTIPLE_PX = 64
GPU_BATCH, TOY_BATCH = 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchWishes:
    """What to measure; None is chosen for the device."""

    stage: str = ALL
    family: str | None = None
    resolution_px: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """The rows, and what they were measured with."""

    rows: Sequence[BenchRow]
    device: str
    family: str
    resolution_px: int
    batch_size: int

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": [row.as_json() for row in self.rows],
            "device": self.device,
            "family": self.family,
            "resolution": self.resolution_px,
            "batch_size": self.batch_size,
        }


def run_bench(settings: TrainingSettings, wishes: BenchWishes, *, emit: Emit) -> BenchResult:
    """Measure the stages that are asked for.

    Raises: UserError for wishes that make no sense; EnvironmentFault where the device cannot be
        used or has no room.
    """
    stages = _stages(wishes.stage)
    _check(wishes)
    # Heavy: brings torch, diffusers and transformers, some 10 s.
    import torch

    from sdft.jobs.benching.stages import STAGES, Place
    from sdft.jobs.doctor import device_problem
    from sdft.train.out_of_memory import is_out_of_memory

    problem = device_problem(settings.device)
    if problem is not None:
        raise EnvironmentFault(problems=[problem])
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    family, side_px, batch_size = _chosen(wishes, on_gpu, emit)
    rows: list[BenchRow] = []
    emit(StageStarted(stage="bench", total=len(stages), unit="stages"))
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sdft-bench-") as folder:
        place = Place(
            settings=settings,
            family=FAMILY_OF[family],
            toy=family == TOY,
            side_px=side_px,
            batch_size=batch_size,
            device=device,
            folder=Path(folder),
            emit=emit,
        )
        for done, stage in enumerate(stages, start=1):
            try:
                rows += STAGES[stage](place)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise EnvironmentFault(
                    what=f"not enough memory: {error}",
                    where=f"bench {stage}",
                    fix="lower --batch_size or --resolution, or take --family toy",
                ) from error
            emit(StageProgress(stage="bench", done=done))
    emit(StageFinished(stage="bench", done=len(stages), duration_s=time.monotonic() - start_s))
    return BenchResult(
        rows=rows,
        device=_name_of(device),
        family=family,
        resolution_px=side_px,
        batch_size=batch_size,
    )


def _stages(stage: str) -> tuple[str, ...]:
    if stage == ALL:
        return STAGE_NAMES
    if stage not in STAGE_NAMES:
        names = [*STAGE_NAMES, ALL]
        fix = nearest(stage, names) or f"one of {', '.join(names)}"
        raise UnknownName(what=f'no stage "{stage}"', where="bench", fix=fix)
    return (stage,)


def _check(wishes: BenchWishes) -> None:
    if wishes.family is not None and wishes.family not in FAMILY_OF:
        names = list(FAMILY_OF)
        fix = nearest(wishes.family, names) or f"one of {', '.join(names)}"
        raise UnknownName(what=f'no family "{wishes.family}"', where="--family", fix=fix)
    side_px = wishes.resolution_px
    if side_px is not None and (side_px < MULTIPLE_PX or side_px % MULTIPLE_PX):
        raise UserError(
            what=f"a side is a multiple of {MULTIPLE_PX} px; {side_px} is not",
            where="--resolution",
            fix=f"use {max(MULTIPLE_PX, side_px // MULTIPLE_PX * MULTIPLE_PX)}",
        )
    if wishes.batch_size is not None and wishes.batch_size < 1:
        raise UserError(what="a batch has 1 image or more", where="--batch_size", fix="use 1")


def _chosen(wishes: BenchWishes, on_gpu: bool, emit: Emit) -> tuple[str, int, int]:
    """Return family, side and batch size; what was not asked for suits the device, and is said."""
    from sdft.models.family import FAMILIES

    where = "a GPU" if on_gpu else "a CPU"
    family = wishes.family or ("sd1" if on_gpu else TOY)
    is_small = family == TOY or not on_gpu
    side_px = wishes.resolution_px
    if side_px is None:
        side_px = SMALL_PX if is_small else FAMILIES[FAMILY_OF[family]].resolution_px
    batch_size = wishes.batch_size
    if batch_size is None:
        batch_size = TOY_BATCH if family == TOY else (GPU_BATCH if on_gpu else 1)
    chosen = {"family": family, "resolution": side_px, "batch_size": batch_size}
    asked = (wishes.family, wishes.resolution_px, wishes.batch_size)
    for (name, value), wish in zip(chosen.items(), asked, strict=True):
        if wish is None:
            emit(SettingChosen(name=name, value=value, reason=f"none was asked for, on {where}"))
    if not on_gpu and family == TOY and wishes.family is None:
        message = "on a CPU a toy is measured; --family sd1 takes the true sizes, and minutes"
        emit(Notice(severity="info", topic="bench", message=message))
    return family, side_px, batch_size


def _name_of(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
