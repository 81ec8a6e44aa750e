"""The two files while they are edited, without a screen."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path

import pytest

from sdft.errors import ConfigError, UserError
from sdft.tui.draft import (
    CONFIG,
    DATASET,
    Draft,
    History,
    changed_rows,
    edited,
    file_text,
    with_subset,
    without_subset,
)
from sdft.tui.draft_values import (
    check,
    declared,
    image_dirs,
    literal_of,
    stated,
    typed_of,
    with_preset,
    with_setting,
)
from sdft.tui.keeping import Keeping
from sdft.tui.project import opened

STRANGE = (
    "\ufeff# a comment\r\n"
    "\r\n"
    "[general]   # spaced\r\n"
    "enable_bucket   =   true    # yes\r\n"
    "caption_extension='.txt'\r\n"
    "other_tool = { nested = [1,\r\n"
    "   2] }\r\n"
    "\r\n"
    "  [[datasets]]\r\n"
    "  resolution = [512,512]\r\n"
    "\tbatch_size=4\r\n"
    "\r\n"
    "    [[datasets.subsets]]\r\n"
    "    image_dir = 'C:\\pictures\\猫 [red]'   # the first\r\n"
    "    num_repeats = 2\r\n"
    "\r\n"
    "# the end"
)


def strange(folder: Path) -> Draft:
    path = folder / "dataset.toml"
    path.write_bytes(STRANGE.encode("utf-8"))
    return opened(path, folder)


def changed_lines(old: bytes, new: bytes) -> list[str]:
    rows = difflib.ndiff(old.splitlines(keepends=True), new.splitlines(keepends=True))  # type: ignore[type-var]
    return [row for row in rows if row[0] in "+-"]


def test_a_file_that_is_opened_and_saved_unchanged_keeps_every_byte(tmp_path: Path) -> None:
    draft = strange(tmp_path)
    draft.saved()
    assert (tmp_path / "dataset.toml").read_bytes() == STRANGE.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "typed", "line"),
    [
        ("enable_bucket", "false", "enable_bucket   =   false    # yes\r\n"),
        ("batch_size", "8", "\tbatch_size=8\r\n"),
        ("caption_extension", ".caption", 'caption_extension=".caption"\r\n'),
        ("num_repeats", "12", "    num_repeats = 12\r\n"),
        ("resolution", "768", "  resolution = 768\r\n"),
        ("image_dir", r"D:\cats", "    image_dir = 'D:\\cats'   # the first\r\n"),
    ],
)
def test_one_field_changed_is_one_line_changed(
    tmp_path: Path, name: str, typed: str, line: str
) -> None:
    draft = with_setting(strange(tmp_path), name, typed)
    draft.saved()
    old = STRANGE.encode("utf-8").decode("utf-8").splitlines(keepends=True)
    new = (tmp_path / "dataset.toml").read_bytes().decode("utf-8").splitlines(keepends=True)
    different = [row for row, before in zip(new, old, strict=True) if row != before]
    assert different == [line]


def test_a_new_key_is_one_new_line_with_the_files_own_line_end(tmp_path: Path) -> None:
    draft = with_setting(strange(tmp_path), "flip_aug", "true")
    old, new = STRANGE.splitlines(keepends=True), draft.file(DATASET).content().decode("utf-8")
    added = [row for row in new.splitlines(keepends=True) if row not in old]
    assert added == ["flip_aug = true\r\n"]
    assert tomllib.loads(new.lstrip("\ufeff"))["general"]["flip_aug"] is True


def test_a_key_taken_out_is_one_line_less(tmp_path: Path) -> None:
    draft = with_setting(strange(tmp_path), "num_repeats", "")
    new = draft.file(DATASET).content().decode("utf-8")
    assert new == STRANGE.replace("    num_repeats = 2\r\n", "")


def test_the_same_value_again_changes_nothing(tmp_path: Path) -> None:
    draft = strange(tmp_path)
    assert with_setting(draft, "batch_size", "4") == draft
    assert with_setting(draft, "enable_bucket", "true") == draft


def test_mixed_line_ends_stay_where_they_are() -> None:
    text = "a = 1\nb = 2\r\nc = 3\nd = 4"
    assert edited(text, ("c",), "5") == "a = 1\nb = 2\r\nc = 5\nd = 4"
    assert edited(text, ("d",), "5").startswith("a = 1\nb = 2\r\nc = 3\nd = 5")


def test_a_folder_is_added_behind_the_others_and_taken_out_again(tmp_path: Path) -> None:
    draft = strange(tmp_path)
    more = with_subset(draft.file(DATASET).text, "more")
    values = tomllib.loads(more)
    assert [entry["image_dir"] for entry in values["datasets"][0]["subsets"]][1] == "more"
    kept = [row for row in more.splitlines(keepends=True) if row in STRANGE]
    assert len(kept) >= len(STRANGE.splitlines()) - 1
    assert '\r\n    [[datasets.subsets]]\r\n    image_dir = "more"\r\n' in more
    less = tomllib.loads(without_subset(more, 1))
    assert less == tomllib.loads(draft.file(DATASET).text)


@pytest.mark.parametrize(
    "text",
    [
        "[[datasets]]\nresolution = 512\n",
        "[[datasets]]\nresolution = 512",
        "datasets = [{resolution = 512, subsets = [{image_dir = 'a'}]}]\n",
        "[[datasets]]\nresolution = 512\nsubsets = [{image_dir = 'a'}]\n",
        "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'a'\nx = [\n 1,\n]\n"
        "[[datasets]]\nresolution = 768\n",
    ],
)
def test_a_folder_is_added_to_any_way_of_writing_them(text: str) -> None:
    before = tomllib.loads(text)["datasets"]
    after = tomllib.loads(with_subset(text, "new [red]"))["datasets"]
    assert after[0].get("subsets", [])[-1] == {"image_dir": "new [red]"}
    assert len(after[0]["subsets"]) == len(before[0].get("subsets", [])) + 1
    assert after[1:] == before[1:]


def test_undo_and_redo_go_over_fields_and_typing_is_one_edit(tmp_path: Path) -> None:
    history = History(opened(None, tmp_path))
    first = history.now
    for typed in ("1", "1e", "1e-5"):
        draft = with_setting(history.now, "learning_rate", typed)
        history = history.edited(draft, "learning_rate", joins=True)
    history = history.settled().edited(with_setting(history.now, "seed", "7"), "seed")
    history, what = history.undone()
    assert what == "seed"
    assert stated(history.now, "learning_rate").value == 1e-5
    history, what = history.undone()
    assert (what, history.now) == ("learning_rate", first)
    assert history.undone() == (history, "")
    history, _ = history.redone()
    history, what = history.redone()
    assert what == "seed"
    assert stated(history.now, "seed").value == 7
    assert history.redone()[1] == ""


def test_the_checks_are_those_of_the_commands_and_name_the_field(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    draft = opened(None, tmp_path)
    assert {"pretrained_model_name_or_path"} <= set(check(draft, tmp_path).fields)
    draft = draft.with_text(DATASET, with_subset(draft.file(DATASET).text, str(images)))
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"")
    draft = with_setting(draft, "pretrained_model_name_or_path", str(model))
    checked = check(draft, tmp_path)
    assert checked.problems == ()
    assert checked.config is not None
    assert checked.config.datasets[0].subsets[0].image_dir == images
    for name, typed in (("learning_rate", "fast"), ("min_snr_gamma", "-1"), ("batch_size", "0")):
        wrong = check(with_setting(draft, name, typed), tmp_path)
        assert wrong.fields == (name,), wrong.problems
        assert wrong.problem_of(name) is not None


def test_nothing_is_on_disk_until_it_is_saved(tmp_path: Path) -> None:
    draft = with_setting(opened(None, tmp_path), "learning_rate", "1e-6")
    assert list(tmp_path.iterdir()) == []
    saved = draft.saved()
    assert not saved.is_changed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "dataset.toml"]


def test_a_file_that_somebody_else_changed_is_not_written_over(tmp_path: Path) -> None:
    draft = with_setting(strange(tmp_path), "batch_size", "2")
    (tmp_path / "dataset.toml").write_text("[[datasets]]\n", encoding="utf-8")
    with pytest.raises(UserError, match="another program"):
        draft.saved()


def test_a_preset_fills_what_nothing_else_says_and_the_dataset_file_follows(tmp_path: Path) -> None:
    draft = with_preset(opened(None, tmp_path), "sd2-12gb")
    assert stated(draft, "resolution").value == 768
    assert stated(draft, "resolution").source == "dataset"
    assert (stated(draft, "full_bf16").value, stated(draft, "full_bf16").source) == (True, "preset")
    assert stated(draft, "ema").source == "default"


@pytest.mark.parametrize(
    ("name", "typed", "literal"),
    [
        ("learning_rate", "2e-6", "2e-6"),
        ("learning_rate", "fast", '"fast"'),
        ("ema", "true", "true"),
        ("output_name", 'a "b" [red]', r'"a \"b\" [red]"'),
        ("output_dir", r"C:\runs\猫", r"'C:\runs\猫'"),
        ("resolution", "512x768", "[512, 768]"),
        ("resolution", "512, 768", "[512, 768]"),
        ("optimizer_args", "weight_decay=0.1, eps=1e-8", '["weight_decay=0.1", "eps=1e-8"]'),
        ("seed", "", None),
        ("seed", "1\nevil = 2", '"1\\nevil = 2"'),
    ],
)
def test_typed_text_in_tomls_words(name: str, typed: str, literal: str | None) -> None:
    assert literal_of(declared(name), typed) == literal


def test_a_value_is_shown_as_it_would_be_typed() -> None:
    assert [typed_of(value) for value in (None, True, 2e-6, [512, 768], "a")] == [
        "", "true", "2e-06", "512, 768", "a",
    ]  # fmt: skip


def test_what_was_not_saved_is_found_again_after_a_crash(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "state")
    draft = strange(tmp_path)
    assert keeping.kept(draft) is None
    changed = with_setting(draft, "batch_size", "16")
    keeping.keep(changed)
    again = Keeping(tmp_path / "state").kept(opened(tmp_path / "dataset.toml", tmp_path))
    assert again is not None
    assert again.file(DATASET).content() == changed.file(DATASET).content()
    keeping.keep(changed.saved())
    assert keeping.kept(opened(tmp_path / "dataset.toml", tmp_path)) is None


def test_recent_projects_are_those_that_are_still_there(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "state")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        keeping.add_recent(opened(None, tmp_path / name).saved())
    assert [path.parent.name for path in keeping.recent()] == ["b", "a"]
    (tmp_path / "b" / "config.toml").unlink()
    assert [path.parent.name for path in keeping.recent()] == ["a"]


def test_a_state_folder_that_cannot_be_written_keeps_nobody_from_working(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    keeping = Keeping(tmp_path / "file" / "state")
    keeping.keep(with_setting(strange(tmp_path), "batch_size", "16"))
    assert "cannot be written" in keeping.problem


def test_a_config_brings_its_dataset_file(tmp_path: Path) -> None:
    strange(tmp_path)
    (tmp_path / "my.toml").write_text("[files]\ndataset_config = 'dataset.toml'\n", "utf-8")
    draft = opened(tmp_path / "my.toml", tmp_path)
    assert draft.file(DATASET).path == tmp_path / "dataset.toml"
    assert image_dirs(draft) == ["C:\\pictures\\猫 [red]"]


def test_one_file_with_both_kinds_of_settings_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    path.write_text("seed = 1\n[[datasets]]\nresolution = 512\n", "utf-8")
    draft = with_setting(opened(path, tmp_path), "batch_size", "3")
    assert draft.files == (draft.config,)
    assert tomllib.loads(draft.config.text)["datasets"] == [{"resolution": 512, "batch_size": 3}]
    draft = with_setting(draft, "learning_rate", "1e-6")
    assert tomllib.loads(draft.config.text)["learning_rate"] == 1e-6


def test_a_mistake_of_toml_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text("[general]\nenable_bucket = yes\n", "utf-8")
    with pytest.raises(ConfigError, match=r"dataset.toml:2") as caught:
        opened(path, tmp_path)
    assert "true and false" in str(caught.value)


def test_changed_rows_are_marked() -> None:
    rows = changed_rows("a = 1\nb = 2\n", "a = 1\nb = 3\nc = 4\n")
    assert rows == [(" ", "a = 1"), ("-", "b = 2"), ("+", "b = 3"), ("+", "c = 4")]


def test_a_new_file_begins_with_what_sd_scripts_reads(tmp_path: Path) -> None:
    draft = opened(tmp_path, tmp_path)
    assert file_text(draft.file(CONFIG).path).original is None
    values = tomllib.loads(draft.file(DATASET).text)
    assert values.keys() == {"general", "datasets"}
