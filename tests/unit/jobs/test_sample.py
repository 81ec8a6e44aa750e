"""What `sdft sample` refuses, before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdft.errors import ConfigError, UnknownName, UserError
from sdft.events import ignore
from sdft.jobs.sample import run_sample


def sample(tmp_path, **asked):
    return run_sample(Path("none.safetensors"), output_dir=tmp_path / "out", emit=ignore, **asked)


def test_an_unknown_sampler_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UnknownName, match='did you mean "euler_a"'):
        sample(tmp_path, prompts=["x"], sampler="eular_a")


@pytest.mark.parametrize("side", [500, 32])
def test_a_side_that_does_not_fit_is_answered_with_two_that_do(tmp_path, side):
    with pytest.raises(UserError, match="multiple of 8 px") as caught:
        sample(tmp_path, prompts=["x"], width=side)
    assert caught.value.problems[0].where == "--width"


def test_mistakes_of_a_file_of_prompts_are_said_with_their_lines(tmp_path):
    (tmp_path / "p.txt").write_text("a\nb --w 500\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        sample(tmp_path, prompts_file=tmp_path / "p.txt")
    assert caught.value.problems[0].where.endswith("p.txt:2")


def test_without_a_prompt_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="there is no prompt"):
        sample(tmp_path)
    assert not (tmp_path / "out").exists()
