"""Several processes train one run: the same numbers, the same files, as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import sdft
from tests.toy.in_ranks import (
    draw_images,
    events,
    long,
    losses,
    relative,
    steps,
    weights,
)

GRADIENTS_DIFFER_BY = 1e-5
WEIGHTS_DIFFER_BY = 1e-4
SHAPES = {"1x4": (1, 4, 1), "2x2": (2, 2, 1), "4x1": (4, 1, 1), "1x1, 4 added up": (1, 1, 4)}
"""Name to processes, batch size, accumulation."""


class Shapes(dict):
    """The same run, trained in each way that is asked for; name to folder."""

    def __init__(self, ground):
        self._ground = ground

    def __missing__(self, name):
        ranks, batch_size, accumulation = SHAPES[name]
        out = self[name] = self._ground.folder / name.replace(" ", "-")
        ran = self._ground.train(
            out,
            ranks=ranks,
            batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            train_text_encoder=True,
            how={"gradients": str(out / "gradients.npy"), "shapes": str(out / "shapes")},
        )
        ran.require(*[0] * ranks)
        return out


@pytest.fixture(scope="module")
def shapes(ground):
    return Shapes(ground)


@pytest.mark.parametrize("name", ["2x2", long("4x1"), long("1x1, 4 added up")])
def test_the_same_global_batch_gives_the_same_run(shapes, name):
    one, other = shapes["1x4"], shapes[name]
    ranks, _, accumulation = SHAPES[name]
    # As many took part as were asked for, and each had work in every step.
    assert len(list(other.glob("shapes.*"))) == ranks
    assert [line["items"] for line in steps(other)] == [line["items"] for line in steps(one)]
    assert {line["items"] for line in steps(one)} == {2, 4}, "a remainder, and full steps"
    assert len({tuple(line["bucket"]) for line in steps(one)}) == 4
    started = next(line for line in events(other) if line["event"] == "RunStarted")
    assert started["effective_batch"] == 4
    assert losses(other) == pytest.approx(losses(one), rel=GRADIENTS_DIFFER_BY)
    gradients, others = (np.load(folder / "gradients.npy") for folder in (one, other))
    assert len(gradients) == len(others) == len(steps(one))
    for mine, its in zip(gradients, others, strict=True):
        assert relative(mine, its) < GRADIENTS_DIFFER_BY
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    start = {name: value for name, value in _first_weights(one).items() if name in before}
    moved = torch.cat([(before[name] - start[name]).flatten() for name in start])
    apart = torch.cat([(before[name] - after[name]).flatten() for name in start])
    assert float(apart.norm() / moved.norm()) < WEIGHTS_DIFFER_BY
    if accumulation == 1:
        # Whoever has nothing left takes part with what counts 0.
        lines = [(other / f"shapes.{rank}").read_text("ascii") for rank in range(ranks)]
        assert len(set(lines)) == 1, "the same resolutions in every process"


def _first_weights(folder):
    from safetensors.torch import load_file

    return load_file(folder.parent / "model" / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def half(ground):
    """Two steps by two processes, with a state; return the folder."""
    out = ground.folder / "half"
    ran = ground.train(
        out,
        ranks=2,
        batch_size=2,
        train_text_encoder=True,
        max_train_epochs=None,
        max_train_steps=2,
        save_state_on_train_end=True,
        # How gradients are exchanged changes none of their bits.
        ddp_timeout=5,
        ddp_gradient_as_bucket_view=True,
        ddp_static_graph=True,
    )
    ran.require(0, 0)
    return out


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_state_of_two_processes_goes_on_with_as_many_as_there_are(
    ground, shapes, half, ranks, tmp_path
):
    ran = ground.train(
        tmp_path,
        ranks=ranks,
        batch_size=2,
        train_text_encoder=True,
        resume=str(half / "out" / "toy.run" / "states" / "step00000002"),
    )
    ran.require(*[0] * ranks)
    whole = losses(shapes["2x2"])
    after = {step: loss for step, loss in whole.items() if step > 2}
    rel = 0 if ranks == 2 else GRADIENTS_DIFFER_BY
    assert losses(tmp_path) == pytest.approx(after, rel=rel, abs=0)
    one, other = weights(shapes["2x2"]), weights(tmp_path)
    for name, value in one.items():
        if ranks == 2:
            assert torch.equal(value, other[name])
        else:
            assert torch.allclose(value, other[name], rtol=WEIGHTS_DIFFER_BY, atol=1e-6)
    chosen = [line for line in events(tmp_path) if line["event"] == "SettingChosen"]
    kept = [line["value"] for line in chosen if line["name"] == "images a step"]
    assert kept == ([] if ranks == 2 else [[4]])
    inexact = [line["message"] for line in events(tmp_path) if line.get("topic") == "exactness"]
    assert ["processes 2, now" in one for one in inexact] == ([] if ranks == 2 else [True])


@pytest.mark.parametrize(
    ("kill", "last_states"),
    [
        pytest.param({"rank": 1, "backward": 4}, [3], id="the other in a step"),
        long({"rank": 0, "folder": "step00000003"}, [2], id="the main one in a save"),
    ],
)
def test_a_killed_process_ends_the_run_and_the_last_state_goes_on_exactly(
    ground, shapes, kill, last_states, tmp_path
):
    config = ground.write_config(
        tmp_path,
        batch_size=2,
        train_text_encoder=True,
        no_rolling_state=False,
        rolling_state_steps=1,
    )
    ran = ground.again(tmp_path, config, ranks=2, kill=kill)
    dead = kill["rank"]
    assert ran.codes[dead] == -9, ran.said
    # By its own error, and within a minute, as is promised.
    assert ran.codes[1 - dead] == 76, ran.said
    assert ran.ended_s[1 - dead] - ran.ended_s[dead] < 60
    if dead == 1:
        stopped = [line for line in events(tmp_path) if line["event"] == "RunStopped"]
        assert "another process of this run has ended" in stopped[0]["reason"]
        assert "--resume auto" in stopped[0]["fix"]
        assert "Traceback" not in ran.said[0]
    else:
        assert ran.said[1] == "", "who only lost the others says nothing"

    ground.again(tmp_path, config, "--resume", "auto", ranks=2).require(0, 0)
    notices = [line["message"] for line in events(tmp_path) if line["event"] == "Notice"]
    going_on = [one for one in notices if one.startswith("going on from step")]
    assert [int(one[-8:]) for one in going_on] in [[step] for step in last_states]
    assert losses(tmp_path) == losses(shapes["2x2"])
    one, other = weights(shapes["2x2"]), weights(tmp_path)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.long
def test_one_process_that_is_asked_to_end_stops_all_with_a_state(ground, tmp_path):
    (tmp_path / "prompts.txt").write_text("a picture --w 64 --h 64 --s 2\n" * 3, "utf-8")
    config = ground.write_config(
        tmp_path,
        batch_size=1,
        sample_prompts=str(tmp_path / "prompts.txt"),
        sample_every_n_steps=2,
        validation_split=0.25,
        validate_every_n_steps=2,
    )
    ran = ground.again(tmp_path, config, ranks=2, kill={"rank": 1, "terminated": 3})
    ran.require(5, 5)
    assert ran.said[1] == ""
    assert "stopped after step 3: terminated" in ran.said[0]
    drawn = sorted(path.name for path in (tmp_path / "out" / "toy.run" / "samples").glob("*.png"))
    assert len([name for name in drawn if "_000002_" in name]) == 3
    ground.again(tmp_path, config, "--resume", "auto", ranks=2).require(0, 0)
    measured = [line["step"] for line in events(tmp_path) if line["event"] == "ValidationDone"]
    assert measured == sorted(set(measured))
    assert {0, 2, 4} <= set(measured)


@pytest.mark.long
def test_a_hypernetwork_is_the_same_by_two_processes(ground, tmp_path):
    for ranks in (1, 2):
        ran = ground.train(
            tmp_path / f"{ranks}",
            ranks=ranks,
            batch_size=2,
            gradient_accumulation_steps=2 // ranks,
            hypernetwork=True,
            # A new one gives no gradient to its first layers until the last ones have moved.
            weight_initialization="XavierNormal",
            learning_rate=0.1,
            how={"gradients": str(tmp_path / f"{ranks}.npy")},
        )
        ran.require(*[0] * ranks)
    one, two = (np.load(tmp_path / f"{ranks}.npy") for ranks in (1, 2))
    for mine, its in zip(one, two, strict=True):
        assert relative(mine, its) < GRADIENTS_DIFFER_BY


@pytest.mark.long
def test_the_command_starts_its_processes_and_goes_on_when_one_dies(ground, shapes, tmp_path):
    config = ground.write_config(
        tmp_path,
        batch_size=2,
        train_text_encoder=True,
        no_rolling_state=False,
        rolling_state_steps=1,
        num_processes=2,
        max_restarts=1,
    )
    command = [sys.executable, "-m", "sdft", "train", str(config), "--json"]
    environment = os.environ | {"PYTHONPATH": str(Path(sdft.__file__).parent.parent)}
    with (tmp_path / "said").open("w") as said, (tmp_path / "result").open("w") as result:
        launcher = subprocess.Popen(command, env=environment, stdout=result, stderr=said)
        killed = _kill_when_at_step(2, tmp_path, launcher.pid, rank=1)
        assert launcher.wait(200) == 0, (tmp_path / "said").read_text("utf-8")
    words = (tmp_path / "said").read_text("utf-8")
    named = words.index("process 1 of 2 was killed by SIGKILL")
    assert named < words.index("another process of this run has ended"), "the cause comes first"
    assert "going on from the last state (1 of 1 new starts)" in words
    assert "Traceback" not in words
    delivered = json.loads((tmp_path / "result").read_text("utf-8"))
    assert delivered["steps"] == len(losses(shapes["2x2"]))
    assert delivered["resume"] is not None
    assert losses(tmp_path) == losses(shapes["2x2"])
    one, other = weights(shapes["2x2"]), weights(tmp_path)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert not psutil.pid_exists(killed)


def _kill_when_at_step(step, out, launcher, *, rank):
    """Kill one of a launcher's processes when the run has come to a step; return its number."""
    _wait_for_step(step, out)
    for child in psutil.Process(launcher).children():
        if child.environ().get("RANK") == str(rank):
            child.kill()
            return child.pid
    raise AssertionError(f"process {rank} is not there")


def _wait_for_step(step, out):
    deadline_s = time.monotonic() + 200
    while time.monotonic() < deadline_s:
        if (out / "out" / "toy.run" / "events.jsonl").exists() and step in losses(out):
            return
        time.sleep(0.02)
    raise AssertionError("the run did not come to that step")


@pytest.mark.long
def test_torchrun_goes_on_with_three_of_four_when_a_machine_is_lost(ground, shapes, tmp_path):
    config = ground.write_config(
        tmp_path, train_text_encoder=True, no_rolling_state=False, rolling_state_steps=1
    )
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{trial.getsockname()[1]}"
    # Each agent stands for a machine with one process.
    starter = ["-m", "torch.distributed.run", "--nnodes", "3:4", "--nproc-per-node", "1"]
    starter += ["--max-restarts", "3", "--rdzv-id", "toy", "--rdzv-backend", "c10d"]
    starter += ["--rdzv-endpoint", meeting, "-m", "sdft", "train", str(config)]
    environment = os.environ | {"PYTHONPATH": str(Path(sdft.__file__).parent.parent)}
    with (tmp_path / "said").open("w") as said:
        agents = [
            subprocess.Popen([sys.executable, *starter], env=environment, stderr=said, stdout=said)
            for _ in range(4)
        ]
        _wait_for_step(2, tmp_path)
        # Neither the one that all meet at, nor the one that writes.
        lost = next(agent for agent in agents if _can_be_lost(agent.pid, meeting))
        for process in (*psutil.Process(lost.pid).children(recursive=True), lost):
            process.kill()
        codes = [agent.wait(250) for agent in agents if agent is not lost]
        lost.wait()
    assert codes == [0, 0, 0], (tmp_path / "said").read_text("utf-8")
    started = [line for line in events(tmp_path) if line["event"] == "RunStarted"]
    assert started[-1]["first_step"] > 1
    kept = [line for line in events(tmp_path) if line.get("name") == "images a step"]
    assert kept[-1]["value"] == [4]
    assert "3 processes" in kept[-1]["reason"]
    assert losses(tmp_path) == pytest.approx(losses(shapes["4x1"]), rel=GRADIENTS_DIFFER_BY)


def _can_be_lost(agent, meeting):
    process = psutil.Process(agent)
    listens = [one.laddr.port for one in process.net_connections("tcp") if one.status == "LISTEN"]
    ranks = [child.environ().get("RANK") for child in process.children()]
    return int(meeting.rpartition(":")[2]) not in listens and ranks not in (["0"], [])


@pytest.mark.long
@pytest.mark.timeout(1000)
def test_two_hundred_steps_over_nine_buckets_never_wait_for_each_other(ground, tmp_path):
    wide = [(256, 64), (224, 64), (192, 64), (160, 96)]
    sizes = [*wide, (128, 128), *((height, width) for width, height in wide)]
    draw_images(tmp_path / "images", sizes)
    ran = ground.train(
        tmp_path,
        ranks=2,
        batch_size=1,
        steps_px=32,
        image_dir=tmp_path / "images",
        cache_dir=str(tmp_path / "cache"),
        max_train_epochs=None,
        max_train_steps=200,
        how={"shapes": str(tmp_path / "shapes"), "limit_s": 900},
    )
    ran.require(0, 0)
    lines = [(tmp_path / f"shapes.{rank}").read_text("ascii").splitlines() for rank in (0, 1)]
    assert len(lines[0]) == 200
    assert lines[0] == lines[1]
    assert len(set(lines[0])) == len(sizes) == 9
