from __future__ import annotations

from pathlib import Path

import pytest

from sdft.cli.argv import FLAG, LOOSE, VALUE, VALUES, Line, Option, read_line

OPTIONS = (
    Option(name="learning_rate", takes=VALUE),
    Option(name="learning_rate_te", takes=VALUE),
    Option(name="max_train_steps", takes=VALUE),
    Option(name="max_train_epochs", takes=VALUE),
    Option(name="noise_offset", takes=VALUE),
    Option(name="optimizer_args", takes=VALUES),
    Option(name="gradient_checkpointing", takes=FLAG),
    Option(name="xformers", takes=FLAG),
    Option(name="network_module", takes=LOOSE, hidden=True),
)


def read(line: str) -> Line:
    return read_line(line.split(), OPTIONS)


def complaints(line: str) -> list[str]:
    return [str(problem) for problem in read(line).problems]


@pytest.mark.parametrize(
    "line",
    [
        "--learning_rate 1e-5",
        "--learning-rate 1e-5",
        "--learning_rate=1e-5",
        "--learning-rate=1e-5",
        "--learning_rate 1 --learning_rate 1e-5",
    ],
)
def test_an_option_is_written_with_either_dash_and_either_way_of_giving_its_value(line):
    assert read(line).values == {"learning_rate": "1e-5"}


def test_an_exact_name_wins_over_longer_names_that_begin_with_it():
    assert read("--learning_rate 1 --learning_rate_te 2").values == {
        "learning_rate": "1",
        "learning_rate_te": "2",
    }


def test_a_beginning_that_fits_one_option_stands_for_it():
    assert read("--grad --opt a=1 --max_train_s 5").values == {
        "gradient_checkpointing": True,
        "optimizer_args": ("a=1",),
        "max_train_steps": "5",
    }


def test_a_beginning_that_fits_several_options_is_refused_with_their_names():
    assert complaints("--max_train 5") == [
        "--max_train: fits several options\n  -> one of --max_train_epochs, --max_train_steps"
    ]


def test_a_list_takes_every_word_up_to_the_next_option():
    assert read("--optimizer_args weight_decay=0.01 betas=0.9,0.99 --xformers").values == {
        "optimizer_args": ("weight_decay=0.01", "betas=0.9,0.99"),
        "xformers": True,
    }


def test_a_config_behind_a_list_is_said_to_be_misplaced():
    (complaint,) = complaints("--optimizer_args a=1 config.toml")
    assert "put config.toml first" in complaint


def test_an_equals_sign_within_a_value_belongs_to_the_value():
    assert read("--optimizer_args=weight_decay=0.01").values == {
        "optimizer_args": ("weight_decay=0.01",)
    }


@pytest.mark.parametrize("value", ["-0.1", "-5", "-1e-3", "-.5", "-"])
def test_a_negative_number_is_a_value(value):
    assert read(f"--noise_offset {value}").values == {"noise_offset": value}


def test_a_value_that_is_missing_is_said():
    assert complaints("--noise_offset --xformers") == ["--noise_offset: needs a value"]
    assert complaints("--noise_offset") == ["--noise_offset: needs a value"]
    assert complaints("--optimizer_args") == ["--optimizer_args: needs one value or more"]


def test_a_flag_can_be_turned_off_by_a_value_behind_an_equals_sign():
    assert read("--xformers=false").values == {"xformers": "false"}


def test_the_first_toml_or_json_is_config_wherever_it_stands():
    assert read("config.toml --xformers").config == Path("config.toml")
    assert read("--xformers My.TOML").config == Path("My.TOML")
    assert read("--noise_offset 1 dataset.json --xformers").config == Path("dataset.json")


def test_a_value_is_never_taken_for_config():
    line = read("--noise_offset config.toml")
    assert line.config is None
    assert line.values == {"noise_offset": "config.toml"}


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("--xformers true", "right behind the option"),
        ("a.toml b.toml", "CONFIG is already a.toml"),
        ("fine_tune.py --xformers", "leave it out"),
        ("-- stray", "right behind the option"),
    ],
)
def test_a_stray_word_is_a_mistake(line, fix):
    (complaint,) = complaints(line)
    assert "a word that belongs to no option" in complaint
    assert fix in complaint


def test_a_folder_of_images_as_config_is_answered_by_the_option_for_it(tmp_path):
    (complaint,) = complaints(str(tmp_path))
    assert f'--train_data_dir "{tmp_path}"' in complaint


def test_an_unknown_option_names_the_nearest_and_keeps_its_values_from_being_strays():
    line = read("--learning_rte 1e-5 config.toml -xformers")
    assert [str(problem) for problem in line.problems] == [
        "--learning_rte: no such option\n  -> did you mean --learning_rate?",
        "-xformers: no such option\n  -> did you mean --xformers?",
    ]
    assert line.config == Path("config.toml")


def test_options_of_lora_are_not_taken_for_misspelt_ones():
    (complaint,) = complaints("--network_dim 32")
    assert "it belongs to LoRA, which is not supported" in complaint


def test_an_option_that_is_only_named_to_be_answered_leaves_config_alone():
    line = read("--network_module networks.lora config.toml --network_module=x")
    assert line.config == Path("config.toml")
    assert line.values == {"network_module": "x"}
    assert line.problems == ()


def test_every_mistake_of_a_line_is_reported():
    assert len(complaints("a.toml stray --lerning_rate 1 --max_train 2 --noise_offset")) == 4


def test_an_empty_value_is_a_value():
    assert read_line(["--noise_offset", "", "--xformers"], OPTIONS).values["noise_offset"] == ""
