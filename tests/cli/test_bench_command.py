"""`sdft bench`: its rows are what scripts rely on."""

import json

import pytest

from sdft.jobs.benching import encoding, stages
from tests.cli.commands import sdft

NAMES = {
    "data: batches from the cache",
    "encode: cache-latents",
    "encode: the VAE alone",
    "encode: arithmetic of the VAE",
    "step: the training loop",
    "step: the bare loop",
    "step: arithmetic of the U-Net",
    "step: peak memory of the process",
    "save: training waits for a state",
    "save: a state on the disk, read back",
    "save: a checkpoint on the disk",
}


@pytest.fixture
def short(monkeypatch):
    """Short stretches: what is measured is of no account here."""
    monkeypatch.setattr(stages, "STRETCH_S", 0.0)
    monkeypatch.setattr(stages, "ROUNDS", 2)
    monkeypatch.setattr(encoding, "MIN_ROUND_S", 0.0)
    monkeypatch.setattr(encoding, "ROUNDS", 1)


SMALL = ("--family", "toy", "--resolution", "64", "--batch-size", "1", "--device", "cpu")


def test_every_stage_gives_its_rows_in_one_run(capsys, short):
    code, result, err = sdft(capsys, "bench", *SMALL, "--json", "--quiet")
    assert code == 0, err
    rows = {row["name"]: row for row in result["rows"]}
    assert rows.keys() == NAMES
    assert all(row.keys() == {"name", "value", "unit", "against", "ratio"} for row in rows.values())
    assert all(row["value"] > 0 for row in rows.values())
    loop, bare = rows["step: the training loop"], rows["step: the bare loop"]
    assert loop["ratio"] == pytest.approx(loop["value"] / bare["value"])
    assert 0 < rows["step: arithmetic of the U-Net"]["ratio"] < 1


def test_settings_of_the_step_are_heard(capsys, short):
    settings = ("--optimizer_type", "Adafactor", "--fused_backward_pass", "--max_grad_norm", "0")
    code, result, err = sdft(capsys, "bench", "step", *SMALL, *settings, "--json")
    assert code == 0, err
    rows = {row["name"]: row for row in result["rows"]}
    # It steps in the backward pass, which the bare loop does not.
    assert "step: the bare loop" not in rows
    assert rows["step: the training loop"]["ratio"] is None
    assert "the bare loop is left out" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("stepp",), 'did you mean "step"?'),
        (("step", "--family", "sd3"), "no family"),
        (("step", "--resolution", "100"), "multiple of 64"),
        (("step", "--batch_size", "0"), "1 image or more"),
        (("step", "--batch_size", "two"), "no whole number"),
        (("step", "--full_bf16"), "mixed_precision"),
        (("step", "--optimizer_type", "Adamw9"), "optimizer"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(capsys, words, named):
    code, result, err = sdft(capsys, "bench", *words, "--json")
    assert code == 2
    assert named in err
    assert json.dumps(result)
