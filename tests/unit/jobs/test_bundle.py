"""What is packed for a bug report says what happened, and nothing about who it happened to."""

from __future__ import annotations

import json
import zipfile

import pytest

from sdft.cli.app import run as run_command
from sdft.errors import UserError
from sdft.events import EventLine, ItemRejected, Notice, RunStopped, ignore
from sdft.jobs.bundle import NUM_FIRST_LINES, NUM_LAST_LINES, run_bundle
from sdft.jobs.scrubbing import Scrubber
from sdft.rundir import RunDir
from tests.unit.views.run_folder import make_run

ENVIRONMENT = {"HOME": "/home/anna", "USER": "anna"}

PRIVATE = ("anna", "wedding", "hf_abcdefghijklmnopqrstu", "0123456789abcdef" * 2 + "01234567")


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path / "anna wedding", "cats", num_steps=60)
    config = run.config_file.read_text()
    config += 'sample_prompts = "/data/anna wedding/my prompts.txt"\n'
    config = 'log_tracker_name = "cats"\nmetadata_author = "anna"\n' + config
    config += '[wandb]\napi_key = "0123456789abcdef0123456789abcdef01234567"\n'
    run.config_file.write_text(config)
    events = [
        ItemRejected(path="/home/anna/pictures/our wedding 7.jpg", reason="cut off"),
        Notice(
            severity="warning",
            topic="caption",
            message='"a photo of anna at her wedding" in /mnt/big disk/our wedding 7.jpg is cut',
        ),
        Notice(severity="info", topic="x", message="D:\\wedding\\pics\\a.png, --token hf_abcdefgh"),
        RunStopped(
            step=60,
            reason="cannot read /data/anna wedding/my prompts.txt: hf_abcdefghijklmnopqrstu",
            resumable=False,
            fix="sdft train ~/anna.toml --wandb_api_key "
            "0123456789abcdef0123456789abcdef01234567 --lr 1e-5",
        ),
    ]
    with run.events_file.open("a", encoding="ascii") as file:
        file.writelines(EventLine.write(event, 1.0) + "\n" for event in events)
    run.log_file.write_text("not used: /home/anna/pictures/our wedding 7.jpg: cut off\n", "utf-8")
    (run.path / "lock.json").write_text('{"pid": 1, "host": "annas-computer"}')
    return run


def packed(run, tmp_path):
    result = run_bundle(
        run, tmp_path / "b.zip", emit=ignore, with_doctor=False, environment=ENVIRONMENT
    )
    with zipfile.ZipFile(result.bundle) as archive:
        return {name: archive.read(name).decode("utf-8") for name in archive.namelist()}


def test_nothing_private_is_packed(run, tmp_path):
    contents = packed(run, tmp_path)
    everything = "\n".join(contents.values())
    for private in PRIVATE:
        assert private not in everything, private
    assert "annas-computer" not in everything
    assert {"config.json", "environment.json", "events.jsonl", "fates.jsonl", "log.txt"} <= {
        *contents
    }
    assert not any(name.endswith((".png", ".safetensors")) for name in contents)


def test_what_happened_can_still_be_followed(run, tmp_path):
    contents = packed(run, tmp_path)
    events = [json.loads(line) for line in contents["events.jsonl"].splitlines()]
    assert [event["step"] for event in events if event["event"] == "StepDone"] == [*range(1, 61)]
    stopped = events[-1]
    assert stopped["reason"].startswith("cannot read <path ")
    assert stopped["reason"].endswith("***")
    assert "--lr 1e-5" in stopped["fix"]
    (rejected,) = [event for event in events if event["event"] == "ItemRejected"]
    assert rejected["path"].endswith(".jpg")
    # The same picture has the same name in every file.
    assert contents["log.txt"] == f"not used: {rejected['path']}: cut off\n"
    settings = json.loads(contents["config.json"])
    assert settings["learning_rate"] == 1e-5
    assert settings["metadata_author"] == "<4 characters>"
    assert settings["wandb"] == {"api_key": "***"}
    fates = [json.loads(line) for line in contents["fates.jsonl"].splitlines()]
    assert len({fate["path"] for fate in fates}) == 41


def test_of_a_long_record_both_ends_are_packed(tmp_path):
    run = RunDir(tmp_path / "long.run")
    run.path.mkdir()
    num_lines = NUM_FIRST_LINES + NUM_LAST_LINES + 5
    run.log_file.write_text("".join(f"line {n}\n" for n in range(num_lines)), "utf-8")
    lines = packed(run, tmp_path)["log.txt"].splitlines()
    assert lines[NUM_FIRST_LINES] == "... 5 lines are left out ..."
    assert (lines[0], lines[-1]) == ("line 0", f"line {num_lines - 1}")


def test_a_damaged_run_is_packed_as_far_as_it_goes(tmp_path):
    run = RunDir(tmp_path / "bad.run")
    run.path.mkdir()
    run.config_file.write_text("broken = [")
    run.events_file.write_bytes(b"\xff\xfe\n{}\n[1]\n")
    assert set(packed(run, tmp_path)) == {"README.txt", "events.jsonl"}
    with pytest.raises(UserError, match="no such run"):
        run_bundle(RunDir(tmp_path / "none.run"), tmp_path / "b.zip", emit=ignore)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("images/s and 1/2 or a/b", "images/s and 1/2 or a/b"),
        ("https://example.com/a/b.html", "https://example.com/a/b.html"),
        ("see https://me:pass@host/x", "see https://***@host/x"),
        ("--out=/x/y z", "--out=<path 1> z"),
        (r"C:\data\cats.toml: line 3", "<path 1>.toml: line 3"),
        ("~/cats", "<path 1>"),
        ("keep (1.5) /a/b, /c/d.", "keep (1.5) <path 1>, <path 2>."),
    ],
)
def test_paths_are_told_from_other_text(text, clean):
    found = Scrubber({"HOME": "/home/anna"}).text(text)
    assert found == clean


def test_the_command_packs_beside_the_run(tmp_path, capsys):
    make_run(tmp_path, "cats", num_steps=60)
    assert run_command(["doctor", "--bundle", str(tmp_path / "cats"), "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bundle"] == str(tmp_path / "cats.run-bundle.zip")
    assert "doctor.json" in result["files"]
