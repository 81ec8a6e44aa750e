"""Weights that are spread over two processes: the same numbers, the same files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.toy.in_ranks import (
    events,
    long,
    losses,
    relative,
    steps,
    weights,
)

DIFFER_BY = 1e-5
WEIGHTS_DIFFER_BY = 1e-4


def train(ground, out, *, ranks, **settings):
    how = {"limit_s": 400} | {name: str(out / name) for name in ("gradients", "parts")}
    ran = ground.train(out, ranks=ranks, train_text_encoder=True, how=how, **settings)
    ran.require(*[0] * ranks)
    return out


@pytest.fixture(scope="module")
def one(ground):
    """The run by one process."""
    return train(ground, ground.folder / "one", ranks=1, batch_size=4)


@pytest.fixture(scope="module")
def two(ground):
    """The same by two."""
    return train(ground, ground.folder / "two", ranks=2, batch_size=2, fsdp=True)


@pytest.fixture(scope="module")
def half(ground):
    """Three steps of it, with a state."""
    length = {"max_train_epochs": None, "max_train_steps": 3, "save_state_on_train_end": True}
    out = ground.folder / "half"
    return train(ground, out, ranks=2, batch_size=2, fsdp=True, **length)


def weights_of(folder):
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def parts(folder, ranks):
    return [json.loads((folder / f"parts.{rank}").read_text("ascii")) for rank in range(ranks)]


def assert_same_run(one, other):
    assert losses(other) == pytest.approx(losses(one), rel=DIFFER_BY)
    gradients, others = (np.load(folder / "gradients.npy") for folder in (one, other))
    assert len(gradients) == len(others) == len(steps(one))
    for mine, its in zip(gradients, others, strict=True):
        assert relative(mine, its) < DIFFER_BY


@pytest.mark.timeout(900)
def test_weights_spread_over_two_processes_give_the_same_run(one, two):
    for found in parts(two, 2):
        assert found["processes"] == 2
        assert found["spread"] == found["weights"] > 300
        assert found["own_values"] < 0.52 * found["values"]
        assert found["most_whole"] == 1, "tensors that were whole on a process' device at once"
        assert [name.startswith("FSDP") for name in found["networks"]] == [True, True]
    assert sum(found["own_values"] for found in parts(two, 2)) == found["values"]
    assert {line["items"] for line in steps(two)} == {2, 4}, "a remainder, and full steps"
    assert len({tuple(line["bucket"]) for line in steps(two)}) == 4
    assert_same_run(one, two)
    before, after = weights(one), weights(two)
    assert before.keys() == after.keys()
    first = weights_of(one.parent / "model" / "unet")
    moved = torch.cat([(before[name] - first[name]).flatten() for name in first])
    apart = torch.cat([(before[name] - after[name]).flatten() for name in first])
    assert float(apart.norm() / moved.norm()) < WEIGHTS_DIFFER_BY


def resumed(ground, half, out, *, ranks, **settings):
    state = half / "out" / "toy.run" / "states" / "step00000003"
    return train(ground, out, ranks=ranks, resume=str(state), **settings)


def assert_goes_on(two, other, *, rel):
    """Check the steps after the state; to the last bit with `rel` 0."""
    after = {step: loss for step, loss in losses(two).items() if step > 3}
    assert losses(other) == pytest.approx(after, rel=rel, abs=0)
    one, its = weights(two), weights(other)
    for name, value in one.items():
        if rel:
            assert torch.allclose(value, its[name], rtol=WEIGHTS_DIFFER_BY, atol=1e-6)
        else:
            assert torch.equal(value, its[name])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_state_of_spread_weights_goes_on_in_one_process(ground, two, half, tmp_path):
    assert_goes_on(two, resumed(ground, half, tmp_path, ranks=1, batch_size=2), rel=DIFFER_BY)
    said = [line["message"] for line in events(tmp_path) if line.get("topic") == "exactness"]
    assert "processes 2 with fsdp, now 1" in said[0]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_state_of_spread_weights_goes_on_spread_over_as_many_as_there_are(
    ground, two, half, ranks, tmp_path
):
    other = resumed(ground, half, tmp_path, ranks=ranks, batch_size=2, fsdp=True)
    assert [found["processes"] for found in parts(other, ranks)] == [ranks] * ranks
    assert all(found["own_values"] < found["values"] for found in parts(other, ranks))
    assert_goes_on(two, other, rel=0 if ranks == 2 else DIFFER_BY)


@pytest.mark.long
@pytest.mark.timeout(1300)
def test_all_that_surrounds_a_step_is_the_same_with_spread_weights(ground, tmp_path):
    """Samples, validation, a moving average, AdamW, accumulation, frozen blocks, checkpointing."""
    (tmp_path / "prompts.txt").write_text("a picture --w 64 --h 64 --s 2\n" * 3, "utf-8")
    settings = {
        "optimizer_type": "AdamW",
        "optimizer_args": [],
        "learning_rate": 1e-4,
        "gradient_checkpointing": True,
        "ema": True,
        "ema_decay": 0.5,
        "freeze": ["unet.conv_in.*", "unet.down_blocks.0.*"],
        "max_train_epochs": None,
        "max_train_steps": 3,
        "sample_prompts": str(tmp_path / "prompts.txt"),
        "sample_every_n_steps": 2,
        "validation_split": 0.4,
        "validation_timesteps": 2,
        "validate_every_n_steps": 2,
        "save_best_validation": True,
    }
    one = train(ground, tmp_path / "one", ranks=1, gradient_accumulation_steps=4, **settings)
    shapes = {"ranks": 2, "gradient_accumulation_steps": 2, "fsdp": True}
    for name, more in (("two", {}), ("kept", {"fsdp_reshard_after_forward": False})):
        two = train(ground, tmp_path / name, **shapes, **settings, **more)
        assert losses(two) == pytest.approx(losses(one), rel=1e-4)
        for event, value in (("ValidationDone", "loss"), ("SampleSaved", "prompt")):
            mine, its = (
                [line[value] for line in events(out) if line["event"] == event]
                for out in (one, two)
            )
            assert its == (pytest.approx(mine, rel=1e-4) if value == "loss" else mine)
            assert len(mine) == 3
        for mine in sorted((one / "out" / "toy.run" / "samples").glob("toy_*.png")):
            its = Image.open(two / "out" / "toy.run" / "samples" / mine.name)
            apart = np.asarray(Image.open(mine), int) - np.asarray(its, int)
            assert np.abs(apart).max() <= 2
        before, after = weights(one), weights(two)
        first = weights_of(ground.model / "unet")
        moved = [float((before[name] - first[name]).norm()) for name in first]
        assert len([one for one in moved if one]) > 0.5 * len(moved)
        assert len([one for one in moved if not one]) > 0
        apart = torch.cat([(before[name] - after[name]).flatten() for name in first])
        # AdamW makes more of differences in the last bits than they are.
        assert float(apart.norm()) < 0.02 * sum(one**2 for one in moved) ** 0.5
        assert (two / "out" / "toy-best").exists()


@pytest.mark.long
def test_spread_processes_that_are_asked_to_end_save_a_state_together(ground, one, tmp_path):
    config = ground.write_config(tmp_path, batch_size=2, train_text_encoder=True, fsdp=True)
    ground.again(tmp_path, config, ranks=2, kill={"rank": 1, "terminated": 3}).require(5, 5)
    ground.again(tmp_path, config, "--resume", "auto", ranks=2).require(0, 0)
    assert losses(tmp_path) == pytest.approx(losses(one), rel=DIFFER_BY)


@pytest.mark.timeout(900)
def test_accelerates_own_config_spreads_weights_by_the_same_way(ground, two, tmp_path):
    """As `accelerate launch` starts it; that its own FSDP2 spreads nothing on CPUs is no matter."""
    said = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    }
    config = ground.write_config(
        tmp_path, batch_size=2, train_text_encoder=True, max_train_epochs=None, max_train_steps=3
    )
    how = {"variables": [said] * 2, "parts": str(tmp_path / "parts"), "limit_s": 400}
    ground.again(tmp_path, config, ranks=2, **how).require(0, 0)
    for found in parts(tmp_path, 2):
        assert found["spread"] == found["weights"] > 300
        assert found["own_values"] < 0.52 * found["values"]
        assert [name.startswith("FSDP") for name in found["networks"]] == [True, True]
    # To the last bit what --fsdp gives.
    assert losses(tmp_path) == {step: loss for step, loss in losses(two).items() if step <= 3}
    messages = [line["message"] for line in events(tmp_path) if "message" in line]
    assert any("fsdp_state_dict_type (SHARDED_STATE_DICT) is not taken" in one for one in messages)
    (spread,) = [line["message"] for line in events(tmp_path) if line.get("topic") == "fsdp"]
    held = parts(tmp_path, 2)[0]
    assert f"holds {held['own_values']:,} of {held['values']:,}" in spread


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kill", "last_state"),
    [
        pytest.param({"rank": 1, "gathering": 1000}, 1, id="the other while a save gathers"),
        long({"rank": 1, "backward": 4}, 3, id="the other in a step"),
        long({"rank": 0, "backward": 4}, 3, id="the main one in a step"),
        long({"rank": 0, "folder": "step00000003"}, 2, id="the main one while it writes"),
    ],
)
def test_a_killed_process_of_a_spread_run_ends_it_and_the_last_state_goes_on_exactly(
    ground, two, kill, last_state, tmp_path
):
    config = ground.write_config(
        tmp_path,
        batch_size=2,
        train_text_encoder=True,
        fsdp=True,
        no_rolling_state=False,
        rolling_state_steps=1,
    )
    ran = ground.again(tmp_path, config, ranks=2, kill=kill)
    dead = kill["rank"]
    assert ran.codes[dead] == -9, ran.said
    # By its own error, and within a minute, as is promised.
    assert ran.codes[1 - dead] == 76, ran.said
    assert ran.ended_s[1 - dead] - ran.ended_s[dead] < 60
    assert "Traceback" not in ran.said[1 - dead]
    if dead == 1:
        stopped = [line for line in events(tmp_path) if line["event"] == "RunStopped"]
        assert "another process of this run has ended" in stopped[0]["reason"]
        assert "--resume auto" in stopped[0]["fix"]
    else:
        assert ran.said[1] == "", "who only lost the others says nothing"
    ground.again(tmp_path, config, "--resume", "auto", ranks=2, limit_s=400).require(0, 0)
    notices = [line["message"] for line in events(tmp_path) if line["event"] == "Notice"]
    going_on = [one for one in notices if one.startswith("going on from step")]
    assert [int(one[-8:]) for one in going_on] == [last_state]
    assert losses(tmp_path) == losses(two)
    before, after = weights(two), weights(tmp_path)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
