"""The declarations: each is complete, and every option of fine_tune.py has an answer."""

import subprocess
import sys
from pathlib import Path

import pytest

from sdft.config.dataset import DatasetSettings, SourceSettings, SubsetSettings, dataset_settings
from sdft.config.names import FLAG_TO_KEY
from sdft.config.refused import NEEDLESS, REFUSED
from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings

OPTIONS = (Path(__file__).parent / "fine_tune_options.txt").read_text().split()
MODELS = (TrainingSettings, DatasetSettings, SubsetSettings, SourceSettings)
EVERY = [setting for model in MODELS for setting in settings_of(model)]


def test_all_167_options_of_fine_tune_are_listed_once():
    assert len(set(OPTIONS)) == len(OPTIONS) == 167


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_is_supported_or_refused_or_needless(option):
    flags = {s.flag for s in (*settings_of(TrainingSettings), *dataset_settings())}
    # output_config is an option of `sdft train`, which writes a file and ends; no setting of a run.
    supported = option in flags or option == "output_config"
    answers = [supported, option in REFUSED, option in NEEDLESS]
    assert answers.count(True) == 1


def test_no_training_setting_is_both_declared_and_refused():
    declared = {setting.name for setting in settings_of(TrainingSettings)}
    assert not declared & (REFUSED.keys() | NEEDLESS.keys())


@pytest.mark.parametrize("setting", EVERY, ids=lambda setting: setting.name)
def test_a_declaration_has_one_sentence_of_help_and_a_group(setting):
    assert setting.help.endswith(".")
    assert setting.help.isascii()
    assert 10 < len(setting.help) < 100
    assert setting.group
    assert setting.wanted


def test_all_defaults_fit_their_own_declarations():
    for model in MODELS:
        model.model_validate({name: f.default for name, f in model.model_fields.items()})


def test_flags_of_datasets_have_the_command_lines_names():
    flags = {setting.name: setting.flag for setting in dataset_settings()}
    assert flags["batch_size"] == "train_batch_size"
    assert flags["num_repeats"] == "dataset_repeats"
    assert "image_dir" not in flags
    assert "conditioning_data_dir" not in flags
    assert FLAG_TO_KEY["train_batch_size"] == "batch_size"


def test_kinds_ranges_and_choices_are_read_from_the_declaration():
    by_name = {setting.name: setting for setting in EVERY}
    assert by_name["clip_skip"].type is int
    assert by_name["clip_skip"].range == "from 1 to 12"
    assert by_name["mixed_precision"].choices == ("no", "fp16", "bf16")
    assert by_name["v2"].is_flag
    assert by_name["optimizer_args"].is_list
    assert by_name["vae"].is_path
    assert by_name["huber_c"].wanted == "a number, more than 0"


def test_config_brings_in_no_slow_library():
    code = (
        "import sys, sdft.config.load, sdft.config.write, sdft.config.schema\n"
        "slow = {'torch', 'numpy', 'PIL', 'diffusers', 'transformers', 'tomlkit', 'rich'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
