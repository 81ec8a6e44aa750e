"""The settings that ship with the program."""

import tomllib

import pytest

from sdft.config.load import load_config
from sdft.config.preset import FOLDER, PRESETS, preset_text
from sdft.config.write import resolved_toml
from sdft.errors import ConfigError

DATASET = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'imgs'\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "imgs").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "d.toml").write_text(DATASET)
    return tmp_path


def load(project, **flags):
    given = {
        "pretrained_model_name_or_path": "model",
        "output_dir": "out",
        "dataset_config": "d.toml",
    }
    return load_config(None, given | flags, project, for_training=True)


def test_there_is_a_file_for_each_name():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_passes_all_checks_and_has_no_word_without_effect(project, name):
    config = load(project, preset=name)
    assert [str(notice) for notice in config.notices] == []
    origins = config.origins.values()
    assert sum(place.startswith(f"preset {name}:") for place in origins) > 15
    again = project / "again.toml"
    again.write_text(resolved_toml(config), "utf-8")
    assert load_config(again, {}, project) == config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is_for_and_why(name):
    text = preset_text(name)
    assert f"--preset {name}" in text
    assert sum(line.startswith("#") for line in text.splitlines()) >= 10
    settings = tomllib.loads(text)
    assert settings.keys() >= {
        "resolution",
        "enable_bucket",
        "batch_size",
        "mixed_precision",
        "optimizer_type",
        "learning_rate",
        "lr_scheduler",
        "max_train_epochs",
        "save_model_as",
        "save_precision",
    }


def test_file_and_options_win_over_a_preset(project):
    (project / "c.toml").write_text(
        "preset = 'sd15-6gb'\nlearning_rate = 1e-5\n[[datasets]]\nresolution = 640\n"
        "[[datasets.subsets]]\nimage_dir = 'imgs'\n"
    )
    config = load_config(project / "c.toml", {"lr_warmup_steps": "7"}, project)
    assert config.training.learning_rate == 1e-5
    assert config.training.lr_warmup_steps == 7
    assert config.training.full_bf16
    assert config.datasets[0].resolution == (640, 640)
    assert config.origins["datasets.0.max_bucket_reso"].startswith("preset sd15-6gb:")
    assert config.notices == ()


def test_a_preset_of_another_name_is_refused_with_the_nearest(project):
    with pytest.raises(ConfigError, match='did you mean "sd15-12gb"'):
        load(project, preset="sd15-12g")
