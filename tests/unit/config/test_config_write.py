"""The resolved TOML loads back to the same config; the digest tells what decides the result."""

import json
import tomllib

import pytest

from sdft.config.load import load_config
from sdft.config.schema import json_schema
from sdft.config.settings import settings_of
from sdft.config.shorthands import SHORTHANDS
from sdft.config.training import TrainingSettings
from sdft.config.write import config_digest, named_values, resolved_toml, toml_value

FULL = """
learning_rate = 3e-6
optimizer_args = ["weight_decay=0.01", "betas=0.9,0.999"]
lr_scheduler = "cosine"
lr_warmup_steps = "7%"
output_dir = 'out'
output_name = '日 é'
use_8bit_adam = true
sample_prompts = 'prompts.txt'
max_train_time = "90s"
v2 = false
resume = "auto"
[general]
enable_bucket = true
caption_extension = ".txt"
resize_interpolation = "area"
[[datasets]]
resolution = "512,768"
[[datasets.subsets]]
image_dir = 'imgs'
caption_prefix = 'tab\there'
[[datasets]]
resolution = 256
batch_size = 4
[[datasets.subsets]]
metadata_file = 'meta.json'
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "imgs").mkdir()
    (tmp_path / "meta.json").write_text("{}")
    return tmp_path


def loaded(project, text, flags=None):
    (project / "c.toml").write_text(text, encoding="utf-8")
    return load_config(project / "c.toml", flags or {}, project)


SIMPLE = "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'imgs'\n"


@pytest.mark.parametrize("text", [SIMPLE, FULL])
def test_the_resolved_toml_loads_back_to_an_equal_config(project, tmp_path, text):
    config = loaded(project, text)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "run.toml").write_text(resolved_toml(config), encoding="utf-8")
    again = load_config(tmp_path / "away" / "run.toml", {}, tmp_path / "away")
    assert again == config
    assert config_digest(again) == config_digest(config)
    assert resolved_toml(again) == resolved_toml(config)


def test_every_setting_that_has_a_value_stands_in_the_resolved_toml(project):
    values = tomllib.loads(resolved_toml(loaded(project, SIMPLE)))
    for setting in settings_of(TrainingSettings):
        shorthand = setting.name in SHORTHANDS
        assert (setting.name in values) == (setting.default is not None and not shorthand)


@pytest.mark.parametrize(
    "value",
    ["", "a", 'a"b', "a'b", "C:\\x\\new", "C:\\it's", "\t\n\x00\x7f\x1f", "日本 \U0001f600", "\\"],
)
def test_any_text_survives_toml(value):
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}


@pytest.mark.parametrize("value", [1, 0, -5, 2e-6, 1e-300, 1e22, 0.1, True, False, 2**62])
def test_any_number_survives_toml(value):
    read = tomllib.loads(f"x = {toml_value(value)}")["x"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "flags",
    [
        {"output_dir": "elsewhere"},
        {"output_name": "b"},
        {"device": "cpu"},
        {"max_data_loader_n_workers": 2},
        {"save_every_n_steps": 5},
        {"overwrite": True},
        {"resume": "auto"},
        {"gradient_checkpointing": True},
        {"xformers": True},
        {"logging_dir": "logs"},
    ],
    ids=lambda flags: next(iter(flags)),
)
def test_the_digest_is_the_same_where_the_result_is(project, flags):
    assert config_digest(loaded(project, SIMPLE, flags)) == config_digest(loaded(project, SIMPLE))


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"learning_rate": 1}, "learning_rate"),
        ({"seed": 3}, "seed"),
        ({"save_precision": "fp16"}, "save_precision"),
        ({"use_8bit_adam": True}, "optimizer_type"),
        ({"flip_aug": True}, "datasets.0.subsets.0.flip_aug"),
        ({"train_batch_size": 2}, "datasets.0.batch_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_digest_differs_where_the_result_does_and_the_setting_can_be_named(
    project, flags, name
):
    plain, changed = loaded(project, SIMPLE), loaded(project, SIMPLE, flags)
    assert config_digest(plain) != config_digest(changed)
    old, new = named_values(plain), named_values(changed)
    assert [one for one in old | new if old.get(one) != new.get(one)] == [name]


def test_a_short_form_and_what_it_stands_for_have_one_digest(project):
    short = loaded(project, SIMPLE, {"use_8bit_adam": True})
    assert short == loaded(project, SIMPLE, {"optimizer_type": "adamw8bit"})


def test_the_schemas_are_json_and_know_each_level():
    config, dataset = json_schema("config"), json_schema("dataset")
    json.dumps([config, dataset])
    learning_rate = config["properties"]["learning_rate"]
    assert learning_rate == {
        "type": "number",
        "minimum": 0,
        "description": "Learning rate of the U-Net.",
        "default": 2e-6,
    }
    assert config["properties"]["mixed_precision"]["enum"] == ["no", "fp16", "bf16"]
    assert config["properties"]["train_batch_size"]["minimum"] == 1
    tables = dataset["properties"]["datasets"]["items"]
    assert "batch_size" in tables["properties"]
    assert "image_dir" in tables["properties"]["subsets"]["items"]["properties"]
    assert "image_dir" not in dataset["properties"]["general"]["properties"]
    assert not dataset["additionalProperties"]
