"""A disk of a few megabytes, full or read-only, and a run that goes on when there is room again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toy.killing import ForkServer

DISK_MB = 120
ENVIRONMENT_FAULT = 3


def can_mount() -> bool:
    """Tell whether this system lets a process have small disks of its own."""
    if shutil.which("unshare") is None:
        return False
    line = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason="cannot make a small disk here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[ForkServer, Path]]:
    """Give a server whose folder `disk` is a disk of its own; only the server sees it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f'mount -t tmpfs -o size={DISK_MB}m none "{folder}" && exec "$0" "$@"'
    server = ForkServer(["unshare", "-rm", "sh", "-c", mount])
    yield server, folder
    server.close()


def test_nothing_is_lost_on_a_full_and_on_a_read_only_disk(
    prepared: Path, tmp_path: Path, disk: tuple[ForkServer, Path]
) -> None:
    server, small = disk
    for name in ("dataset.toml", "model.safetensors", "config.toml"):
        shutil.copy(prepared / name, tmp_path)
    shutil.copytree(prepared / "images", tmp_path / "images")
    log = tmp_path / "log.txt"

    def train(out: Path, *options: str) -> tuple[int, str]:
        log.write_text("", "ascii")
        line = ["train", str(tmp_path / "config.toml"), "--output_dir", str(out)]
        own = ["--output_name", "toy", "--cache_dir", str(tmp_path / "cache"), "--allow_sleep"]
        length = ["--max_train_epochs", "1", "--rolling_state_steps", "2", "--device", "cpu"]
        done = server.run([*line, *own, *length, *options], folder=tmp_path, log=log)
        return done["code"], log.read_text("utf-8")

    code, said = train(tmp_path / "whole")
    assert code == 0, said

    # Room for the result and one state, and not for the next one beside it.
    server.shell(f'head -c 50000000 /dev/zero > "{small}/filler"')
    code, said = train(small)
    assert code == ENVIRONMENT_FAULT, said
    assert "the disk of" in said
    assert "will be full at step" in said
    assert "saving the state needs" in said
    assert "Traceback" not in said
    assert server.shell(f'ls "{small}/toy.run/states"').split() == ["step00000002"]

    # Full to the last byte: not even a line of events has room.
    server.shell(f'cat /dev/zero > "{small}/rest" 2> /dev/null || true')
    code, said = train(small, "--resume", "auto")
    assert code == ENVIRONMENT_FAULT, said
    assert "No space left" in said or "are free" in said
    assert "Traceback" not in said

    server.shell(f'mount -o remount,ro "{small}"')
    code, said = train(small, "--resume", "auto")
    assert code == ENVIRONMENT_FAULT, said
    assert "Read-only" in said
    assert "Traceback" not in said

    server.shell(f'mount -o remount,rw "{small}" && rm "{small}/rest" "{small}/filler"')
    code, said = train(small, "--resume", "auto")
    assert code == 0, said
    assert "goes on at step 3" in said
    server.shell(f'cp "{small}/toy.safetensors" "{tmp_path}/resumed.safetensors"')
    from safetensors.torch import load_file

    one = load_file(tmp_path / "whole" / "toy.safetensors")
    other = load_file(tmp_path / "resumed.safetensors")
    assert [name for name in one if not one[name].equal(other[name])] == []
    assert server.shell(f'find "{small}" -name "*.part-*"') == ""
