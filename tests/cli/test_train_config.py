"""Settings printed and written by `sdft train`, instead of training."""

import tomllib

import pytest

from sdft.config.preset import PRESETS, preset_text


@pytest.fixture
def project(tmp_path):
    (tmp_path / "imgs").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_printed_with_its_comments(sdft, name):
    ran = sdft("train", "--preset", name, "--print-config")
    assert ran.code == 0
    assert ran.out == preset_text(name)


def test_the_settings_that_would_count_are_printed(sdft, project):
    line = ["--preset=sd15-12gb", "--train_data_dir", "imgs", "--learning_rate=3e-6"]
    ran = sdft("train", *line, "--print_config")
    assert ran.code == 0
    settings = tomllib.loads(ran.out)
    assert settings["learning_rate"] == 3e-6
    assert settings["optimizer_type"] == "AdamW8bit"
    assert settings["datasets"][0]["resolution"] == [512, 512]
    assert not (project / "last.run").exists()


def test_output_config_writes_a_file_that_says_the_same(sdft, project):
    line = ["--train_data_dir", "imgs", "--resolution=512", "--learning_rate=3e-6"]
    assert sdft("train", *line, "--config_file=mine", "--output_config").code == 0
    written = sdft("train", "mine.toml", "--print-config").out
    assert written == sdft("train", *line, "--print-config").out
    again = sdft("train", *line, "--config_file=mine", "--output_config")
    assert again.code == 2
    assert "there already" in again.err
    assert "needs config_file" in sdft("train", *line, "--output_config").err


def test_mistakes_are_told_before_anything_is_written(sdft, project):
    ran = sdft("train", "--train_data_dir=img", "--resolution=512", "--print-config")
    assert ran.code == 2
    assert 'did you mean "imgs"' in ran.err
    assert ran.out == ""
