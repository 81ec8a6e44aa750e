"""Measures saving: how long the training waits, how long the files take."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

from sdft.events import Emit
from sdft.files import remove, require_space
from sdft.formats.lazy import BLOCK_BYTES
from sdft.jobs.benching.figures import BenchRow
from sdft.jobs.benching.rig import Rig
from sdft.jobs.training.saving import ModelWriter
from sdft.train.background import BackgroundWriter, SaveJob
from sdft.train.state import Identity, Progress
from sdft.train.state_write import StateContent, write_state


def save(rig: Rig, folder: Path, *, side_px: int, emit: Emit) -> list[BenchRow]:
    """Save a state in the background and a checkpoint; return the rows.

    Raises: EnvironmentFault where the disk has no room.
    """
    networks = rig.networks
    state = StateContent(
        modules=networks.trained_weights(),
        optimizer=networks.optimizer_state(),
        progress=Progress(step=1),
        identity=Identity(),
        events_bytes=0,
    )
    require_space(folder, 2 * state.num_bytes, "measuring how a state is saved")
    start_s = perf_counter()
    copy = state.copied()
    copy_s = perf_counter() - start_s
    del copy
    plain_s = _plain_s(folder / "plain", state.num_bytes)
    stall_s, state_s = _state_s(folder / "state", state, emit)
    writer = ModelWriter(
        networks=networks, settings=rig.settings, form="safetensors", resolution=(side_px, side_px)
    )
    start_s = perf_counter()
    model_bytes = writer(folder / "model.safetensors", writer.content(state.progress))
    model_s = perf_counter() - start_s
    remove(folder / "model.safetensors")
    plain_model_s = _plain_s(folder / "plain", model_bytes)
    return [
        BenchRow(
            name="save: training waits for a state",
            value=stall_s,
            unit="s",
            against="one copy in memory",
            ratio=stall_s / copy_s,
        ),
        BenchRow(
            name="save: a state on the disk, read back",
            value=state_s,
            unit="s",
            against=f"writing {state.num_bytes / 1e9:.3g} GB",
            ratio=state_s / plain_s,
        ),
        BenchRow(
            name="save: a checkpoint on the disk",
            value=model_s,
            unit="s",
            against=f"writing {model_bytes / 1e9:.3g} GB",
            ratio=model_s / plain_model_s,
        ),
    ]


def _state_s(path: Path, state: StateContent, emit: Emit) -> tuple[float, float]:
    """Return how long the loop waits and how long all of it takes."""
    background = BackgroundWriter(emit=emit)

    def write(held: StateContent) -> None:
        write_state(path, held)

    job = SaveJob(
        name="state",
        content=state,
        num_bytes=state.num_bytes,
        copied=lambda live: live.copied(),
        write=write,
    )
    start_s = perf_counter()
    background.submit([job])
    background.wait_for_copies()
    stall_s = perf_counter() - start_s
    background.wait()
    whole_s = perf_counter() - start_s
    remove(path)
    return stall_s, whole_s


def _plain_s(path: Path, num_bytes: int) -> float:
    """Return how long it takes to write and flush so many bytes."""
    block = os.urandom(BLOCK_BYTES)
    start_s = perf_counter()
    with path.open("wb") as file:
        for start in range(0, num_bytes, BLOCK_BYTES):
            file.write(block[: num_bytes - start])
        file.flush()
        os.fsync(file.fileno())
    plain_s = perf_counter() - start_s
    remove(path)
    return plain_s
