"""How many images a step sees, and that a resumed run keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdft.config.training import TrainingSettings
from sdft.errors import EnvironmentFault, UserError
from sdft.events import SettingChosen
from sdft.jobs.training.step_size import effective_batch
from sdft.jobs.training.together_start import require_gpu
from sdft.processes import Place
from sdft.train.state import Identity, Progress, SavedState


def state_of(kept):
    return SavedState(
        path=Path("state"),
        progress=Progress(),
        identity=Identity(parts={"effective_batch": kept}),
        events_bytes=0,
    )


def ask(batch_size, num_processes, *, kept=None, accumulation=1, allowed=()):
    said = []
    settings = TrainingSettings(gradient_accumulation_steps=accumulation, allow_changed=allowed)
    found = effective_batch(
        settings,
        batch_size,
        num_processes,
        state=state_of(kept) if kept else None,
        emit=said.append,
    )
    return found, said


def test_a_new_run_has_batch_size_times_processes_times_accumulation():
    assert ask([4, 1], 2, accumulation=3) == ([24, 6], [])


@pytest.mark.parametrize(("processes", "kept"), [(1, "4"), (3, "4"), (4, "4"), (2, "6")])
def test_a_resumed_run_keeps_its_steps_on_another_number_of_processes(processes, kept):
    found, said = ask([2], processes, kept=kept)
    assert found == [int(kept)]
    assert [type(one) for one in said] == [SettingChosen]
    assert f"{processes} processes" in said[0].reason


def test_the_same_number_of_processes_says_nothing():
    assert ask([2], 2, kept="4") == ([4], [])


def test_steps_too_small_for_the_processes_are_an_error_that_says_what_can_be_done():
    with pytest.raises(UserError) as caught:
        ask([1], 3, kept="2")
    said = str(caught.value)
    assert "steps of 2 images, which 3 processes cannot share" in said
    assert "resume with 2 processes or fewer" in said
    assert "num_processes = 3" in said
    assert ask([1], 3, kept="2", allowed=("effective_batch",)) == ([3], [])


def test_another_batch_size_is_left_to_the_check_of_the_settings():
    assert ask([3], 1, kept="4") == ([3], [])


def test_a_process_without_a_gpu_of_its_own_says_how_many_there_are():
    require_gpu(Place(rank=5, size=8, local_rank=1), 2)
    with pytest.raises(EnvironmentFault) as caught:
        require_gpu(Place(rank=6, size=8, local_rank=2), 2)
    assert "process 6 of 8" in str(caught.value)
    assert "this machine has 2" in str(caught.value)
