"""Killed at any instant, a command run again ends as if it had never been killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.toy.killing import (
    ForkServer,
    Unbroken,
    assert_same_run,
    files_of,
    fresh,
    kill_until_done,
    unfinished,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL"),
]

SEED = int(os.environ.get("KILL_SEED", "1"))

STEPS = 8
TRAINING = [
    *("--max_train_steps", str(STEPS), "--train_batch_size", "2", "--device", "cpu"),
    *("--save_every_n_steps", "3", "--save_last_n_steps", "2", "--save_state"),
    *("--rolling_state_steps", "2", "--shuffle_caption", "--caption_dropout_rate", "0.2"),
    "--allow_sleep",
]


@dataclass(frozen=True)
class Ground:
    """Where everything lies; each attempt at a work gets folders of its own."""

    server: ForkServer
    folder: Path
    prepared: Path

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def train_line(self, name: str) -> list[str]:
        """Return a command line whose output, and whose cache, are its own."""
        out = str(self.folder / name / "out")
        cache = str(self.folder / name / "cache")
        own = ["--output_dir", out, "--output_name", "toy", "--cache_dir", cache]
        return ["train", str(self.folder / "config.toml"), *own, *TRAINING]

    def unbroken(self, argv: list[str], folder: Path) -> Unbroken:
        done = self.server.run(argv, folder=folder, log=self.log)
        assert done["code"] == 0, self.log.read_text()
        assert done["changes"] > 0
        return Unbroken(changes=done["changes"], seconds=done["seconds"])


@pytest.fixture(scope="module")
def ground(prepared: Path, module_folder: Callable[[str], Path]) -> Iterator[Ground]:
    folder = module_folder("killing")
    text = (prepared / "config.toml").read_text("utf-8")
    kept = [line for line in text.splitlines() if not line.startswith("max_train_epochs")]
    (folder / "config.toml").write_text("\n".join(kept), "utf-8")
    for name in ("dataset.toml", "model.safetensors"):
        shutil.copy(prepared / name, folder)
    shutil.copytree(prepared / "images", folder / "images")
    server = ForkServer()
    yield Ground(server=server, folder=folder, prepared=prepared)
    server.close()


def kill_trainings(ground: Ground, *, num_kills: int, kills_a_run: int) -> int:
    """Kill trainings until so many kills have fallen; compare each run with an unbroken one."""
    out = ground.folder / "whole"
    fresh(out)
    unbroken = ground.unbroken(ground.train_line("whole"), out)
    draws = random.Random(SEED)
    fallen = 0
    while fallen < num_kills:
        folder = fresh(ground.folder / "killed")
        ground.log.write_text("", "ascii")
        line = ground.train_line("killed")
        kills = kill_until_done(
            ground.server,
            line,
            [*line, "--resume", "auto"],
            folder=folder,
            log=ground.log,
            unbroken=unbroken,
            draws=draws,
            num_kills=min(kills_a_run, num_kills - fallen),
        )
        try:
            assert_same_run(folder / "out", out / "out", "toy")
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}, kills: {kills}") from error
        fallen += len(kills)
        report("train", fallen, num_kills)
    return fallen


def kill_others(ground: Ground, *, num_kills: int) -> int:
    """Kill what writes single files: metadata and converted models."""
    draws = random.Random(SEED)
    fallen = 0
    works = {
        "metadata": lambda folder: [
            *("metadata", "merge", str(ground.folder / "images")),
            *("--out", str(folder / "meta.json")),
        ],
        "convert": lambda folder: [
            *("convert", str(ground.folder / "model.safetensors"), str(folder / "model.ckpt")),
            "--overwrite",
        ],
        "convert to a folder": lambda folder: [
            *("convert", str(ground.folder / "model.safetensors"), str(folder / "model")),
            *("--save-model-as", "diffusers_safetensors", "--overwrite"),
        ],
    }
    whole = {}
    for name, line in works.items():
        folder = fresh(ground.folder / "whole other" / name)
        whole[name] = (folder, ground.unbroken(line(folder), folder))
    while fallen < num_kills:
        name = draws.choice(list(works))
        expected, unbroken = whole[name]
        folder = fresh(ground.folder / "killed other")
        ground.log.write_text("", "ascii")
        line = works[name](folder)
        kills = kill_until_done(
            ground.server,
            line,
            line,
            folder=folder,
            log=ground.log,
            unbroken=unbroken,
            draws=draws,
            num_kills=1,
        )
        # What a killed process left unfinished is named as such; whole files are equal.
        done = {one for one in files_of(folder) if (folder / one) not in unfinished(folder)}
        where = f"{name}, seed {SEED}, kills {kills}"
        done = {one for one in done if ".part-" not in one}
        assert done == files_of(expected), where
        for one in done:
            if one.endswith((".json", ".safetensors", ".ckpt")):
                assert (folder / one).read_bytes() == (expected / one).read_bytes(), where
        fallen += len(kills)
        report(name, fallen, num_kills)
    return fallen


def report(name: str, fallen: int, num_kills: int) -> None:
    """Write where the long run stands, for whoever waits for it."""
    file = os.environ.get("KILL_REPORT")
    if file:
        with open(file, "a", encoding="ascii") as lines:
            record = {"work": name, "kills": fallen, "of": num_kills, "time": time.time()}
            lines.write(json.dumps(record) + "\n")


def test_a_few_kills_change_nothing(ground: Ground) -> None:
    assert kill_trainings(ground, num_kills=4, kills_a_run=4) == 4
    assert kill_others(ground, num_kills=3) == 3


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_two_hundred_kills_change_nothing(ground: Ground) -> None:
    assert kill_trainings(ground, num_kills=160, kills_a_run=5) == 160
    assert kill_others(ground, num_kills=40) == 40
