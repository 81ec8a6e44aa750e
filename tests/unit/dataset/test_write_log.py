"""The log of writes: whose words are whose, going on, and putting back."""

import json

import pytest

from sdft.dataset import write_log
from sdft.dataset.write_log import ABSENT, FOREIGN, OTHER, SAME, WriteLog, logged_folders, undo
from sdft.errors import EnvironmentFault


def log(settings="a"):
    return WriteLog(line="sdft tag .", settings=settings)


def test_words_are_known_by_who_wrote_them(tmp_path):
    file = tmp_path / "1.txt"
    assert log().origin(file, (1, 2)) == ABSENT
    log().write(file, b"1girl\n", about=(1, 2))
    assert log().origin(file, (1, 2)) == SAME
    assert log().origin(file, (1, 3)) == OTHER
    assert log("b").origin(file, (1, 2)) == OTHER
    file.write_bytes(b"1girl, edited\n")
    assert log().origin(file, (1, 2)) == FOREIGN


def test_words_that_hold_a_person_s_are_never_wholly_ours(tmp_path):
    file = tmp_path / "1.txt"
    file.write_bytes(b"by hand\n")
    log().write(file, b"by hand, 1girl\n", whole=False)
    assert log().origin(file) == SAME
    assert log("b").origin(file) == FOREIGN


def test_undo_puts_back_what_the_last_command_replaced_and_no_more(tmp_path):
    old, new, edited = (tmp_path / name for name in ("old.txt", "new.txt", "edited.txt"))
    old.write_bytes(b"\xff\x00 by hand\r\n")
    edited.write_bytes(b"first")
    first = log()
    for file in (old, new, edited):
        first.write(file, b"made\n")
    first.finish()
    edited.write_bytes(b"second thoughts")
    undone = undo([tmp_path])
    assert (undone.restored, undone.edited, undone.new) == ((old,), (edited,), (new,))
    assert old.read_bytes() == b"\xff\x00 by hand\r\n"
    assert edited.read_bytes() == b"second thoughts"
    assert new.exists()
    assert undo([tmp_path]).line == ""


def test_undo_twice_goes_back_two_commands(tmp_path):
    file = tmp_path / "meta.json"
    contents = [b"0" * 100_000, b"1" * 100_000, b"2"]
    file.write_bytes(contents[0])
    for content in contents[1:]:
        command = log()
        with command.writing(file) as part:
            part.write_bytes(content)
        command.finish()
    for content in (contents[1], contents[0]):
        assert undo([tmp_path]).restored == (file,)
        assert file.read_bytes() == content


def test_a_killed_command_that_went_on_is_undone_as_one(tmp_path):
    one, two = tmp_path / "1.txt", tmp_path / "2.txt"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    log().write(one, b"made")
    # The process ends here without `finish`; the same command starts again.
    again = log()
    again.write(two, b"made")
    again.finish()
    assert undo([tmp_path]).restored == (one, two)
    assert (one.read_bytes(), two.read_bytes()) == (b"one", b"two")


def test_a_write_that_a_power_cut_kept_from_happening_changes_nothing(tmp_path, monkeypatch):
    file = tmp_path / "1.txt"
    file.write_bytes(b"by hand")

    def cut(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(write_log, "write_bytes", cut)
    with pytest.raises(KeyboardInterrupt):
        log().write(file, b"made")
    assert log().origin(file) == FOREIGN


def test_a_torn_last_line_is_passed_over(tmp_path):
    file = tmp_path / "1.txt"
    log().write(file, b"made")
    with (tmp_path / ".sdft" / "writes.jsonl").open("ab") as lines:
        lines.write(b'{"command": "x", "fi')
    log().write(tmp_path / "2.txt", b"made too")
    assert log().origin(file) == SAME
    assert log().origin(tmp_path / "2.txt") == SAME
    lines = (tmp_path / ".sdft" / "writes.jsonl").read_text().splitlines()
    assert sum(line.startswith('{"command"') for line in lines) == len(lines)
    assert json.loads(lines[-1])["file"] == "2.txt"


def test_commands_in_several_folders_are_found_from_their_root(tmp_path):
    for name in ("a", "a/b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_bytes(b"old")
    command = log()
    for name in ("a", "a/b"):
        command.write(tmp_path / name / "1.txt", b"made")
    assert logged_folders(tmp_path) == [tmp_path / "a", tmp_path / "a/b"]
    assert len(undo(logged_folders(tmp_path)).restored) == 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / ".sdft").write_bytes(b"in the way")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        log().write(tmp_path / "1.txt", b"made")
