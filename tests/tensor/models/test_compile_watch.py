"""Compilations are counted and told, and reaching their limit is too."""

from __future__ import annotations

import pytest
import torch

from sdft.events import Notice, StageFinished, StageStarted
from sdft.models.compiling import CompileWatch


@pytest.fixture
def watched():
    torch._dynamo.reset()
    said = []
    watch = CompileWatch(said.append)
    yield watch, said
    watch.close()
    torch._dynamo.reset()


def test_each_new_shape_is_told_once(watched):
    watch, said = watched
    double = torch.compile(lambda value: value * 2, backend="eager", dynamic=False)
    for step, size in enumerate((3, 3, 4, 3), start=1):
        double(torch.ones(size))
        watch.after_step(step)
    started = [one for one in said if isinstance(one, StageStarted)]
    finished = [one for one in said if isinstance(one, StageFinished)]
    assert [one.stage for one in started] == ["compile"] * 2
    assert [one.done for one in finished] == [1, 2]
    assert all(one.duration_s > 0 for one in finished)
    assert watch.num_compiled == 2


def test_several_parts_of_one_step_are_told_together(watched):
    watch, said = watched
    parts = [
        torch.compile(lambda value, by=by: value * by, backend="eager") for by in (2.0, 3.0, 4.0)
    ]
    for part in parts:
        part(torch.ones(2))
    watch.after_step(1)
    finished = [one for one in said if isinstance(one, StageFinished)]
    assert [one.done for one in finished] == [watch.num_compiled]
    assert len([one for one in said if isinstance(one, StageStarted)]) == 1


def test_the_limit_is_told_once(watched):
    watch, said = watched
    double = torch.compile(lambda value: value * 2, backend="eager", dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=2):
        for step, size in enumerate((3, 4, 5, 6, 7), start=1):
            double(torch.ones(size))
            watch.after_step(step)
    notices = [one for one in said if isinstance(one, Notice)]
    assert len(notices) == 1
    assert "uncompiled" in notices[0].message


def test_one_that_was_closed_hears_nothing(watched):
    _, said = watched
    other = CompileWatch(said.append)
    other.close()
    torch.compile(lambda value: value + 1, backend="eager")(torch.ones(2))
    other.after_step(1)
    assert other.num_compiled == 0
