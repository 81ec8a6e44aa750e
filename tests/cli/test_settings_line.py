from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path

import pytest

from sdft.cli.output import Output, deliver, json_safe
from sdft.cli.settings_line import Page, command_options, hidden_options
from sdft.cli.shown_line import HIDDEN, shown_line
from sdft.config.refused import NEEDLESS, REFUSED
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings

PAGE = Page(name="train", summary="Trains.")


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Read a command line as `sdft train` does."""
    monkeypatch.chdir(tmp_path)
    module = import_module("sdft.cli.settings_line")

    def ask(line: str):
        return module.read_or_help(PAGE, line.split())

    return ask


def test_every_training_setting_that_is_supported_is_an_option():
    options = {option.name for option in command_options(PAGE)}
    for setting in settings_of(TrainingSettings):
        assert setting.flag in options or setting.name in REFUSED


def test_every_option_of_the_reference_is_an_option_or_is_answered():
    from sdft.cli.train import PAGE

    names = Path(__file__).parents[1] / "unit" / "config" / "fine_tune_options.txt"
    shown = command_options(PAGE)
    known = {option.name for option in (*shown, *hidden_options(shown))}
    wanted = names.read_text(encoding="utf-8").split()
    assert len(wanted) > 150
    assert [name for name in wanted if name not in known] == []


def test_no_name_stands_for_two_options():
    shown = command_options(PAGE)
    names = [option.name for option in (*shown, *hidden_options(shown))]
    assert len(names) == len(set(names))


def test_the_help_of_all_settings_names_each_with_its_limits(sdft):
    ran = sdft("train", "--help-all")
    for option in command_options(PAGE):
        assert option.spelling in ran.out
        assert option.help.split()[0] in ran.out
    flat = " ".join(ran.out.split())
    assert "[steps; 1 or more; default 1600]" in flat
    assert "--mixed_precision no|fp16|bf16" in flat
    assert not any(f"--{name} " in ran.out for name in (*REFUSED, *NEEDLESS))


def test_the_short_help_shows_the_common_settings_only(sdft):
    short, full = sdft("train", "--help").out, sdft("train", "--help-all").out
    assert "--learning_rate" in short
    assert "--huber_c" not in short
    assert "--huber_c" in full
    assert "sdft train --help-all" in short


def test_the_help_fits_the_width_of_the_terminal(sdft, monkeypatch):
    for columns in (60, 80, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = sdft("train", "--help").out.splitlines()
        # A single word, such as a list of choices, is never broken.
        assert all(len(line) <= columns or len(line.split()) <= 2 for line in lines)


def test_settings_and_a_commands_own_options_are_told_apart(ask):
    asked = ask("c.toml --learning_rate 1 --quiet --json-out r.json --xformers")
    assert asked.config == Path("c.toml")
    assert asked.settings == {"learning_rate": "1", "xformers": True}
    assert asked.output == Output(quiet=True, json_out=Path("r.json"))


def test_the_names_that_keys_have_in_files_are_options_too(ask):
    assert ask("--batch_size 3 --num_repeats=2").settings == {
        "batch_size": "3",
        "num_repeats": "2",
    }


def test_options_without_effect_take_what_they_take_in_the_reference(ask):
    asked = ask("--tokenizer_cache_dir cache --highvram c.toml --persistent_data_loader_workers")
    assert asked.config == Path("c.toml")
    assert asked.problems == ()


def test_a_flag_on_the_line_reaches_the_config(ask, tmp_path):
    (tmp_path / "images").mkdir()
    line = "--train_data_dir images --resolution 64 --learning-rate=3e-6 --gradient_checkpointing"
    line += " --optimizer_args weight_decay=0.1 eps=1e-6 --cache_latents=false"
    config = ask(line).load()
    assert config.training.learning_rate == 3e-6
    assert config.training.optimizer_args == ("weight_decay=0.1", "eps=1e-6")
    assert config.training.gradient_checkpointing is True
    assert config.training.cache_latents is False
    assert config.origins["learning_rate"] == "--learning_rate"


def test_a_shown_line_can_be_copied_and_holds_no_secret_and_no_home():
    words = ["sdft", "train", "my file.toml", "--wandb_api_key", "s3cret", "--x=1"]
    words += ["--huggingface-token=s3cret", "--output_dir", "/home/ann/out"]
    line = shown_line(words, {"HOME": "/home/ann"})
    assert "s3cret" not in line
    assert line.count(HIDDEN) == 2
    assert "ann" not in line
    assert "~/out" in line
    assert "my file.toml" in line


def test_what_json_lacks_becomes_null_or_text():
    value = {"a": math.nan, "b": (1, math.inf), "c": Path("x"), 3: {"d": "\u3042", "e": None}}
    assert json_safe(value) == {
        "a": None,
        "b": [1, None],
        "c": "x",
        "3": {"d": "\u3042", "e": None},
    }


def test_a_result_is_ascii_on_one_line(capsys, tmp_path):
    deliver({"name": "\u3042\udce9\n"}, "words", Output(json=True, json_out=tmp_path / "r.json"))
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out) == json.loads((tmp_path / "r.json").read_text(encoding="ascii"))
