"""Writing, removing and renaming what another program holds for a while, or for good."""

from __future__ import annotations

import sqlite3
import types
from pathlib import Path

import pytest

from sdft import files
from sdft.errors import EnvironmentFault
from sdft.files import append_to, remove, replace, swap, whole_folder, write_bytes
from sdft.rundir import RunDir, RunLock
from tests.held_files import SHARING_VIOLATION, HeldFiles, held_error


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HeldFiles:
    return HeldFiles(monkeypatch, tmp_path, failures=2)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RETRY_FOR_S", 0.4)


def test_a_file_that_is_held_for_a_while_is_written_in_the_end(
    held: HeldFiles, tmp_path: Path
) -> None:
    path = tmp_path / "meta.json"
    for content in (b"first", b"second"):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["meta.json"]
    assert {operation for operation, _ in held.held} == {"replace", "open rb+"}


def test_folders_and_what_is_in_them_are_removed_in_the_end(
    held: HeldFiles, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    with whole_folder(folder) as part:
        (part / "unet").mkdir()
        (part / "unet" / "weights").write_bytes(b"w")
    remove(folder)
    assert list(tmp_path.iterdir()) == []
    assert {"replace", "unlink", "rmdir"} <= {operation for operation, _ in held.held}


def test_a_log_is_continued_and_a_lock_is_let_go(held: HeldFiles, tmp_path: Path) -> None:
    log = tmp_path / "notes.jsonl"
    for line in (b"a\n", b"b\n"):
        with append_to(log) as file:
            file.write(line)
    assert log.read_bytes() == b"a\nb\n"
    run = RunDir(tmp_path / "cats.run")
    with RunLock(run):
        assert run.lock_file.exists()
    assert not run.lock_file.exists()
    assert held.names("unlink") == {run.lock_file.name}


def test_a_damaged_memory_of_images_is_removed_in_the_end(held: HeldFiles, tmp_path: Path) -> None:
    from sdft.cache.image_memory import FILE_NAME, image_memory
    from sdft.events import Notice

    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    said: list[object] = []
    with image_memory(tmp_path, emit=said.append):
        pass
    assert not [one for one in said if isinstance(one, Notice)]
    assert FILE_NAME in held.names("unlink")
    sqlite3.connect(tmp_path / FILE_NAME).close()


@pytest.mark.usefixtures("impatient")
def test_what_stays_held_is_named_and_the_new_file_is_kept_whole(
    held: HeldFiles, tmp_path: Path
) -> None:
    path = tmp_path / "cats.safetensors"
    path.write_bytes(b"old")
    held.mapped.add(path)
    for number in (1, 2):
        with pytest.raises(EnvironmentFault) as caught:
            write_bytes(path, b"new")
        (problem,) = caught.value.problems
        assert problem.where == str(path)
        assert f"cats.new-{number}.safetensors" in problem.what
        assert f"rename cats.new-{number}.safetensors" in problem.fix
    assert path.read_bytes() == b"old"
    assert (tmp_path / "cats.new-1.safetensors").read_bytes() == b"new"
    assert not [name for name in tmp_path.iterdir() if files.PART_MARK in name.name]


@pytest.mark.usefixtures("impatient")
def test_a_folder_does_not_lose_its_name_where_another_cannot_have_it(
    held: HeldFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "model", tmp_path / "model.part-1"
    for folder, content in ((old, b"old"), (new, b"new")):
        folder.mkdir()
        (folder / "unet").write_bytes(content)
    held.mapped.add(old / "unet")
    with pytest.raises(EnvironmentFault, match=r"whole in model\.new-1"):
        swap(new, old)
    assert (old / "unet").read_bytes() == b"old"
    assert (tmp_path / "model.new-1" / "unet").read_bytes() == b"new"

    held.mapped = {tmp_path / "model.new-1" / "unet"}
    with pytest.raises(EnvironmentFault, match="whole in"):
        swap(tmp_path / "model.new-1", old)
    assert (old / "unet").read_bytes() == b"old"

    held.mapped.clear()
    swap(tmp_path / "model.new-1", old)
    assert (old / "unet").read_bytes() == b"new"
    assert [folder.name for folder in tmp_path.iterdir()] == ["model"]


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


def test_it_is_tried_for_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, tries = Clock(), []
    monkeypatch.setattr(files, "time", clock)

    def busy(source: object, destination: object) -> None:
        tries.append(clock.now_s)
        raise held_error(SHARING_VIOLATION, str(source))

    monkeypatch.setattr(files, "os", types.SimpleNamespace(replace=busy))
    with pytest.raises(PermissionError, match=r"a\.txt"):
        replace(tmp_path / "a.txt", tmp_path / "b.txt")
    assert 9.0 <= clock.now_s - 100.0 <= 10.0
    assert len(tries) > 20


def test_other_refusals_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "time", types.SimpleNamespace(monotonic=lambda: 0.0))
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "nothing", tmp_path / "b.txt")
