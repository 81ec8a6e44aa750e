"""`sdft words` shows what training reads, and says what it does not read."""

from __future__ import annotations

import pytest

from tests.unit.dataset.pictures import picture

LONG = ", ".join(f"tag number {number}" for number in range(40))


@pytest.fixture
def config(tmp_path):
    for name, caption in (
        ("a", "one, two, three, four, five"),
        ("b", LONG),
        ("c", "(red:1.3) car"),
    ):
        picture(tmp_path / "images" / f"{name}.png").with_suffix(".caption").write_text(caption)
    path = tmp_path / "dataset.toml"
    path.write_text(
        "[general]\nshuffle_caption = true\n[[datasets]]\nresolution = 64\nbatch_size = 2\n"
        'enable_bucket = false\n[[datasets.subsets]]\nimage_dir = "images"\nnum_repeats = 2\n',
        encoding="utf-8",
    )
    return path


def words(sdft, config, *more):
    ran = sdft("words", config, "--seed", 5, "--max_train_epochs", 10, "--json", "--quiet", *more)
    assert ran.code == 0, ran.err
    return ran.result


def test_every_use_of_an_epoch_is_shown_once_with_its_step(sdft, config):
    found = words(sdft, config, "--epoch", 3)
    assert found["uses"] == len(found["rows"]) == 6
    assert sorted((row["path"], row["repeat"]) for row in found["rows"]) == [
        (f"images/{name}.png", repeat) for name in "abc" for repeat in (0, 1)
    ]
    assert [row["step"] for row in found["rows"]] == [7, 7, 8, 8, 9, 9]
    of_a = [row["words"] for row in found["rows"] if row["path"] == "images/a.png"]
    assert of_a[0] != of_a[1]
    assert {", ".join(sorted(text.split(", "))) for text in of_a} == {"five, four, one, three, two"}


def test_the_same_seed_and_epoch_show_the_same_and_others_do_not(sdft, config):
    first = words(sdft, config, "--epoch", 3)
    assert words(sdft, config, "--epoch", 3) == first
    assert words(sdft, config, "--epoch", 4)["rows"] != first["rows"]


def test_what_is_cut_is_counted_quoted_and_can_be_shown_alone(sdft, config):
    found = words(sdft, config, "--only-cut")
    assert found["cut"] == len(found["rows"]) == 2
    assert found["uses"] == 6
    for row in found["rows"]:
        assert row["path"] == "images/b.png"
        assert row["words"].endswith(row["cut"])
        assert row["tokens"] == found["longest"] > 75
    assert words(sdft, config, "--max_token_length", 225)["cut"] == 0
    assert len(words(sdft, config, "--limit", 1)["rows"]) == 1


def test_weights_count_as_tokens_only_where_they_are_text(sdft, config):
    def tokens_of_c(*more):
        return next(
            row["tokens"] for row in words(sdft, config, *more)["rows"] if "c.png" in row["path"]
        )

    assert tokens_of_c("--weighted_captions") == 2
    assert tokens_of_c() > 4


def test_people_get_lines(sdft, config):
    ran = sdft("words", config, "--seed", 5, "--quiet", "--epoch", 1)
    assert (ran.code, ran.out) == (0, "")
    ran = sdft("words", config, "--seed", 5)
    assert "cut off: " in ran.out
    assert "epoch 1, seed 5: 6 uses, 0 without words, 2 longer than 75 tokens" in ran.out


def test_an_epoch_that_the_run_does_not_have_is_refused(sdft, config):
    ran = sdft("words", config, "--epoch", 99, "--max_train_epochs", 2)
    assert ran.code == 2
    assert "epochs 1 to 2" in ran.err
    assert sdft("words", config, "--epoch", "three").code == 2


def test_an_open_seed_is_said(sdft, config):
    ran = sdft("words", config)
    assert ran.code == 0
    assert "no seed is set" in ran.err
