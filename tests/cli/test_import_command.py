"""`sdft import`: what other programs' files become."""

import json
import shutil
from pathlib import Path

import pytest

from sdft.cli.settings_line import read_or_help
from sdft.cli.train import PAGE
from sdft.config.load import load_config
from sdft.formats.script_lines import KINDS, read_commands

LINES = Path(__file__).parents[1] / "golden" / "command_lines"


@pytest.fixture
def project(tmp_path):
    for name in ("images", "model", "model-v"):
        (tmp_path / name).mkdir()
    for name in ("model.ckpt", "meta.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "dataset.toml").write_text(
        "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'images'\n"
    )
    return tmp_path


@pytest.mark.parametrize("script", sorted(LINES.iterdir()), ids=lambda path: path.name)
def test_an_imported_script_is_the_config_of_its_line(sdft, project, script):
    shutil.copy(script, project)
    ran = sdft("import", script.name, "--out", "mine", "--json")
    assert (ran.code, ran.result["problems"]) == (0, [])
    commands = read_commands(script.read_text("utf-8"), KINDS[script.suffix])
    (words,) = [one.words for one in commands if "fine_tune.py" in one.words]
    line = read_or_help(PAGE, words[words.index("fine_tune.py") + 1 :]).load(for_training=True)
    assert load_config(project / "mine" / "config.toml", {}, project, for_training=True) == line
    assert ran.result["kept"]


def test_what_is_not_supported_is_listed_and_left_out_without_its_secret(sdft, project):
    (project / "run.sh").write_text(
        "python train_network.py --pretrained_model_name_or_path=model.ckpt --output_dir=out \\\n"
        "  --train_data_dir=images --resolution=512,512 --network_module=networks.lora \\\n"
        "  --network_dim=32 --huggingface_token=hf_s3cret --learning_rat=1 --highvram \\\n"
        "  --learning_rate=$LR --use_8bit_adam --caption_extention=.txt\n"
    )
    ran = sdft("import", "run.sh", "--out", "mine", "--json")
    assert (ran.code, ran.result["problems"]) == (0, [])
    refused = {entry["name"]: entry["why"] for entry in ran.result["refused"]}
    assert refused.keys() == {
        "train_network.py",
        "network_module",
        "--network_dim",
        "huggingface_token",
        "--learning_rat",
        "highvram",
        "$LR",
        "learning_rate",
    }
    assert "--learning_rate" in refused["--learning_rat"]
    assert {"from": "use_8bit_adam", "to": "optimizer_type"} in ran.result["mapped"]
    mine = project / "mine"
    written = (mine / "config.toml").read_text() + (mine / "dataset.toml").read_text()
    assert "s3cret" not in written + ran.out + ran.err
    assert 'optimizer_type = "AdamW8bit"' in written
    assert "# Left out: network_module: LoRA" in written


def test_what_is_there_is_not_written_over_unasked(sdft, project):
    (project / "run.bat").write_text("sdft train --train_data_dir images --resolution 512\n")
    ran = sdft("import", "run.bat")
    assert ran.code == 2
    assert "dataset.toml: this file is there already" in ran.err
    # What only training needs is missing, and said.
    again = sdft("import", "run.bat", "--overwrite")
    assert "to mend  " in again.out
    assert "output_dir" in again.out


KOHYA = {
    "pretrained_model_name_or_path": "model.ckpt",
    "train_dir": "",
    "image_folder": "images",
    "output_dir": "out",
    "output_name": "cats",
    "max_resolution": "512,640",
    "train_batch_size": 2,
    "epoch": 3,
    "save_every_n_epochs": 1,
    "save_every_n_steps": 0,
    "mixed_precision": "fp16",
    "save_precision": "fp16",
    "seed": "1234",
    "learning_rate": 1e-05,
    "lr_scheduler": "cosine",
    "lr_warmup": 10,
    "optimizer": "AdamW8bit",
    "optimizer_args": "weight_decay=0.1 betas=0.9,0.99",
    "xformers": "xformers",
    "create_buckets": True,
    "caption_extension": ".txt",
    "shuffle_caption": True,
    "clip_skip": 2,
    "max_token_length": "150",
    "noise_offset": 0,
    "min_snr_gamma": 5,
    "network_dim": 32,
    "save_model_as": "same as source model",
    "persistent_data_loader_workers": False,
    "sample_prompts": "",
    "additional_parameters": "--debiased_estimation_loss --keep_tokens=2",
    "num_cpu_threads_per_process": 2,
}


def test_a_file_of_the_kohya_gui(sdft, project):
    (project / "gui.json").write_text(json.dumps(KOHYA))
    ran = sdft("import", "gui.json", "--out", "mine", "--json")
    assert (ran.code, ran.result["problems"]) == (0, [])
    assert ran.result["program"] == "kohya_ss GUI"
    assert [entry["name"] for entry in ran.result["refused"]] == ["network_dim"]
    config = load_config(project / "mine" / "config.toml", {}, project)
    training, (dataset,) = config.training, config.datasets
    assert (training.max_train_epochs, training.seed) == (3, 1234)
    assert (training.optimizer_type, training.lr_warmup_steps) == ("AdamW8bit", 0.1)
    assert training.optimizer_args == ("weight_decay=0.1", "betas=0.9,0.99")
    assert training.debiased_estimation_loss
    assert training.xformers
    assert training.noise_offset is None
    assert (dataset.resolution, dataset.batch_size) == ((512, 640), 2)
    (subset,) = dataset.subsets
    assert (subset.caption_extension, subset.keep_tokens) == (".txt", 2)
    assert subset.image_dir == project / "images"


ONETRAINER = {
    "training_method": "FINE_TUNE",
    "model_type": "STABLE_DIFFUSION_15",
    "base_model_name": "model.ckpt",
    "output_model_destination": "models/cats.safetensors",
    "output_model_format": "SAFETENSORS",
    "output_dtype": "FLOAT_16",
    "train_dtype": "BFLOAT_16",
    "epochs": 5,
    "batch_size": 4,
    "learning_rate": 3e-06,
    "learning_rate_scheduler": "CONSTANT",
    "learning_rate_warmup_steps": 200.0,
    "resolution": "512,768",
    "aspect_ratio_bucketing": True,
    "ema": "CPU",
    "ema_decay": 0.999,
    "gradient_checkpointing": "ON",
    "optimizer": {"optimizer": "ADAMW_8BIT", "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.99},
    "text_encoder": {"train": True, "learning_rate": 1e-06},
    "save_every": 1,
    "save_every_unit": "EPOCH",
    "concepts": [
        {
            "name": "a",
            "path": "images",
            "balancing": 2.0,
            "image": {"enable_random_flip": True},
            "text": {"enable_tag_shuffling": True, "keep_tags_count": 1},
        },
        {"name": "b", "path": "more", "enabled": False},
    ],
}


def test_a_file_of_onetrainer(sdft, project):
    (project / "one.json").write_text(json.dumps(ONETRAINER))
    ran = sdft("import", "one.json", "--out", "mine", "--json")
    assert (ran.code, ran.result["problems"]) == (0, [])
    refused = [entry["name"] for entry in ran.result["refused"]]
    assert refused == ["resolution = 512,768", "concept b"]
    config = load_config(project / "mine" / "config.toml", {}, project)
    training, (dataset,) = config.training, config.datasets
    assert (training.output_name, training.save_precision) == ("cats", "fp16")
    assert (training.lr_scheduler, training.lr_warmup_steps) == ("constant_with_warmup", 200)
    assert (training.ema, training.ema_device, training.ema_decay) == (True, "cpu", 0.999)
    assert (training.train_text_encoder, training.learning_rate_te) == (True, 1e-6)
    assert training.optimizer_args == ("weight_decay=0.01", "betas=0.9,0.99")
    assert (dataset.resolution, dataset.batch_size, dataset.enable_bucket) == ((512, 512), 4, True)
    (subset,) = dataset.subsets
    assert (subset.num_repeats, subset.flip_aug, subset.keep_tokens) == (2, True, 1)


SIMPLETUNER = {
    "--model_type": "full",
    "--model_family": "sd1x",
    "--pretrained_model_name_or_path": "model.ckpt",
    "--data_backend_config": "backend.json",
    "--output_dir": "out",
    "--resolution": 512,
    "--train_batch_size": 3,
    "--max_train_steps": 900,
    "--learning_rate": "2e-6",
    "--lr_scheduler": "constant",
    "--lr_warmup_steps": 50,
    "--optimizer": "adamw_bf16",
    "--mixed_precision": "bf16",
    "--gradient_checkpointing": "true",
    "--use_ema": "false",
    "--validation_prompt": "a cat",
}
BACKEND = [
    {"id": "cats", "type": "local", "instance_data_dir": "images", "repeats": 4},
    {"id": "text", "dataset_type": "text_embeds", "type": "local"},
    {"id": "far", "type": "aws", "instance_data_dir": "x"},
]


def test_a_file_of_simpletuner(sdft, project):
    (project / "config.json").write_text(json.dumps(SIMPLETUNER))
    (project / "backend.json").write_text(json.dumps(BACKEND))
    ran = sdft("import", "config.json", "--out", "mine", "--json")
    assert (ran.code, ran.result["problems"]) == (0, [])
    refused = [entry["name"] for entry in ran.result["refused"]]
    assert refused == ["validation_prompt", "data backend far"]
    config = load_config(project / "mine" / "config.toml", {}, project)
    training, (dataset,) = config.training, config.datasets
    assert (training.full_bf16, training.learning_rate, training.ema) == (True, 2e-6, False)
    assert (training.lr_scheduler, training.lr_warmup_steps) == ("constant_with_warmup", 50)
    assert (dataset.resolution, dataset.batch_size) == ((512, 512), 3)
    assert dataset.subsets[0].num_repeats == 5


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.bat", "echo hello\n", "no line here starts a training script"),
        ("a.json", "[1]", "one object"),
        ("a.json", '{"x": 1}', "not the settings of a program that is known"),
        ("a.json", "{", "not valid JSON"),
        ("a.yaml", "x: 1", "not a kind of file"),
        ("a.sh", "python sdxl_train.py --x\n", "no line here starts"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(sdft, project, name, text, says):
    (project / name).write_text(text)
    ran = sdft("import", name)
    assert ran.code == 2
    assert says in ran.err
