"""Hypernetworks trained on the toy by the real job: exact, watched, saved, gone on from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdft.cli.app import run
from sdft.config.checks_network import effects_of_network
from sdft.config.training import TrainingSettings
from sdft.errors import ConfigError, DataError, StoppedResumable, UserError
from sdft.events import Notice, SampleSaved, StateSaved, ValidationDone
from sdft.jobs.verify import run_verify
from sdft.models.checkpoint import read
from sdft.models.hypernetwork_file import read_hypernetwork
from tests.toy.toy_runs import stop_after
from tests.toy_pictures import write_pictures

HYPER = {"hypernetwork": True, "learning_rate": 3e-3, "lr_scheduler": "constant"}
DEEP = {
    "layer_structure": "1,2,2,1",
    "activation_func": "relu",
    "add_layer_norm": True,
    "use_dropout": True,
}


def weights_of(path):
    return {name: read(tensor) for name, tensor in read_hypernetwork(path).tensors().items()}


def assert_same_weights(one, other):
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture
def others(tmp_path):
    folder = tmp_path / "others"
    write_pictures(folder, 3, side_px=128, seed=9)
    return folder


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat --w 64 --h 64 --s 2 --d 1\n", "utf-8")
    return file


def test_a_resumed_run_is_exact_with_dropout_and_a_moving_average(toy):
    settings = {**HYPER, **DEEP, "ema": True, "ema_decay": 0.9}
    whole = toy("whole", max_train_steps=4, **settings)
    assert whole.error is None, whole.error
    first = toy("halved", max_train_steps=4, listen=stop_after(2), **settings)
    assert isinstance(first.error, StoppedResumable)
    (state,) = (Path(one.path) for one in first.of(StateSaved))
    # No weight of the model stands in a state.
    assert {one.name for one in state.glob("*.safetensors")} == {
        "hypernetwork.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
    }
    rest = toy("halved", max_train_steps=4, resume="auto", **settings)
    assert rest.error is None, rest.error
    assert first.losses | rest.losses == whole.losses
    assert_same_weights(whole.result.checkpoint, rest.result.checkpoint)


def test_watching_changes_no_bit_and_pictures_show_what_is_trained(toy, others, prompts):
    settings = {**HYPER, "use_dropout": True, "layer_structure": "1,2,2,1", "learning_rate": 0.03}
    plain = toy("plain", max_train_steps=2, **settings)
    watched = toy(
        "watched",
        max_train_steps=2,
        sample_prompts=str(prompts),
        sample_every_n_steps=1,
        sample_at_first=True,
        validation_dir=str(others),
        validate_every_n_steps=1,
        **settings,
    )
    assert watched.error is None, watched.error
    assert plain.losses == watched.losses
    assert_same_weights(plain.result.checkpoint, watched.result.checkpoint)
    pictures = [Path(one.path).read_bytes() for one in watched.of(SampleSaved)]
    assert len(set(pictures)) == 3
    losses = [one.loss for one in watched.of(ValidationDone)]
    assert len(set(losses)) == 3


# The short form is in tests/tensor/train/test_train_hypernetwork.py.
@pytest.mark.long
def test_the_loss_falls_with_the_hypernetwork_alone(toy, others):
    run = toy(
        max_train_steps=30,
        validation_dir=str(others),
        validate_every_n_steps=15,
        **{**HYPER, "learning_rate": 1e-2},
    )
    assert run.error is None, run.error
    train = [one.train_loss for one in run.of(ValidationDone)]
    assert train[0] > train[1] > train[2]
    assert train[2] < 0.98 * train[0]


def test_a_run_goes_on_from_a_file_whatever_its_form_and_counts_its_steps(toy, tmp_path):
    first = toy("first", max_train_steps=3, **HYPER, **DEEP)
    assert first.result.checkpoint.name == "first.pt"
    fields = read_hypernetwork(first.result.checkpoint).fields
    assert (fields.step, fields.name) == (3, "first")
    assert (fields.layer_structure, fields.activation_func) == ((1, 2, 2, 1), "relu")
    assert (fields.is_layer_norm, fields.activate_output) == (True, False)
    assert fields.structure.dropout == (0, 0.3, 0, 0)
    assert fields.sd_checkpoint_name == "model"
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert fields.sd_checkpoint == digest[:10]

    more = {"network_weights": str(first.result.checkpoint), "save_model_as": "safetensors"}
    # A rate of nearly nothing shows what the run began with.
    second = toy("second", max_train_steps=2, **{**HYPER, **more, "learning_rate": 1e-12})
    assert second.error is None, second.error
    assert second.result.checkpoint.name == "second.safetensors"
    after = read_hypernetwork(second.result.checkpoint).fields
    assert (after.step, after.structure) == (5, fields.structure)
    one, other = weights_of(first.result.checkpoint), weights_of(second.result.checkpoint)
    assert all(torch.allclose(one[name], other[name], atol=1e-9) for name in one)
    assert run_verify(second.result.run, emit=lambda _: None).problems == ()


def test_the_average_is_saved_and_not_the_last_weights(toy):
    plain = toy("plain", max_train_steps=2, **HYPER)
    averaged = toy("averaged", max_train_steps=2, ema=True, **HYPER)
    assert plain.losses == averaged.losses
    one, other = weights_of(plain.result.checkpoint), weights_of(averaged.result.checkpoint)
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"train_text_encoder": True}, "train_text_encoder is about weights of the model"),
        ({"freeze": "IN00"}, "freeze is about weights of the model"),
        ({"save_model_as": "ckpt"}, "cannot be saved as ckpt"),
        ({"layer_structure": "2,1"}, "must begin and end with 1"),
        ({"layer_structure": "1,x,1"}, "layer_structure must be numbers above 0"),
        ({"layer_structure": "1,0,1"}, "above 0"),
        ({"dropout_structure": "0,0.3"}, "dropout_structure has 2 numbers"),
        ({"dropout_structure": "0,1,0", "use_dropout": True}, "below 1"),
        ({"activation_func": "rellu"}, 'did you mean "relu"'),
        ({"network_weights": "nowhere.pt"}, "no such file"),
        ({"hypernetwork": False, "save_model_as": "pt"}, "pt is the form of a hypernetwork"),
    ],
)
def test_settings_that_do_not_fit_are_answered(toy, settings, what):
    run = toy(**(HYPER | settings))
    assert isinstance(run.error, ConfigError)
    assert run.error.exit_code == 2
    assert what in str(run.error)


def test_settings_without_effect_are_said():
    told = effects_of_network(TrainingSettings(add_layer_norm=True), {})
    assert [one.what for one in told] == ["add_layer_norm has no effect without hypernetwork"]
    told = effects_of_network(TrainingSettings(hypernetwork=True, last_layer_dropout=True), {})
    assert "without use_dropout" in told[0].what


def test_files_that_cannot_be_gone_on_from_are_answered(toy, prepared, tmp_path):
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down.lora_up.weight": torch.zeros(2, 2)}, lora)
    embedding = tmp_path / "embedding.pt"
    torch.save({"string_to_param": {"*": torch.zeros(1, 64)}, "name": "x", "step": 3}, embedding)
    wide = tmp_path / "wide.pt"
    module = {"linear.0.weight": torch.zeros(256, 128), "linear.0.bias": torch.zeros(256)}
    module |= {"linear.1.weight": torch.zeros(128, 256), "linear.1.bias": torch.zeros(128)}
    torch.save({128: [module, module]}, wide)
    model = prepared / "model.safetensors"
    for path, kind, words in (
        (lora, DataError, "this is a LoRA, no hypernetwork"),
        (embedding, DataError, "an embedding (textual inversion), no hypernetwork"),
        (model, DataError, "a Stable Diffusion model, no hypernetwork"),
        (wide, UserError, "attention layers have 32, 64"),
    ):
        error = toy(network_weights=str(path), **HYPER).error
        assert isinstance(error, kind), error
        assert words in str(error)
    first = toy("first", max_train_steps=1, **HYPER)
    other = {"network_weights": str(first.result.checkpoint), "layer_structure": "1,2,2,1"}
    error = toy("second", **HYPER, **other).error
    assert isinstance(error, UserError)
    assert "layer_structure is 1,2,2,1, and this hypernetwork has 1,2,1" in str(error)


def test_a_file_with_only_some_widths_trains_those_and_says_so(toy, tmp_path):
    module = {"linear.0.weight": torch.zeros(128, 64), "linear.0.bias": torch.zeros(128)}
    module |= {"linear.1.weight": torch.ones(64, 128), "linear.1.bias": torch.zeros(64)}
    torch.save({64: [module, module]}, tmp_path / "some.pt")
    run = toy(max_train_steps=1, network_weights=str(tmp_path / "some.pt"), **HYPER)
    assert run.error is None
    assert any("it has none for 32" in one.message for one in run.of(Notice))
    assert read_hypernetwork(run.result.checkpoint).widths == (64,)


def test_the_commands_draw_with_it_convert_it_and_verify_it(
    toy, prepared, tmp_path, monkeypatch, capsys
):
    trained = toy("trained", max_train_steps=2, **{**HYPER, "learning_rate": 0.3})
    monkeypatch.chdir(tmp_path)
    path = trained.result.checkpoint
    copy, back = tmp_path / "copy.safetensors", tmp_path / "back.pt"
    assert run(["convert", str(path), str(copy)]) == 0
    assert run(["convert", str(copy), str(back)]) == 0
    assert read_hypernetwork(back).fields == read_hypernetwork(path).fields
    assert_same_weights(path, back)
    capsys.readouterr()
    for one in (path, copy, back):
        assert run(["verify", str(one)]) == 0
        assert 'hypernetwork "trained"' in (said := capsys.readouterr().out)
        assert "2 steps" in said
        assert "1 - 2 - 1, linear" in said

    def draw(name, *words):
        line = ["sample", str(prepared / "model.safetensors"), "--prompt", "a cat", "--seed", "1"]
        line += ["--width", "64", "--height", "64", "--steps", "2", "--device", "cpu"]
        assert run([*line, "--output-dir", name, *words]) == 0
        (picture,) = (tmp_path / name).glob("*.png")
        return picture

    def pixels(picture):
        with Image.open(picture) as image:
            return image.tobytes()

    bare, off = draw("bare"), draw("off", "--hypernetwork", f"{path}:0")
    on = draw("on", "--hypernetwork", str(path))
    both = draw("both", "--hypernetwork", f"{path}:0.8", "--hypernetwork", f"{copy}:0.5")
    assert pixels(bare) == pixels(off)
    assert len({pixels(one) for one in (bare, on, both)}) == 3
    with Image.open(both) as image:
        assert image.info["parameters"].endswith("Hypernets: trained:0.8 copy:0.5")
    capsys.readouterr()
    model = str(prepared / "model.safetensors")
    line = ["sample", model, "--prompt", "x", "--device", "cpu", "--hypernetwork"]
    assert run([*line, "none.pt:1"]) == 2
    assert "no such file: none.pt" in capsys.readouterr().err
    assert run([*line, model]) == 4


def test_conversions_that_cannot_be_are_answered(toy, prepared, tmp_path):
    path = str(toy("trained", max_train_steps=1, **HYPER).result.checkpoint)
    assert run(["convert", path, str(tmp_path / "folder")]) == 2
    assert run(["convert", path, path]) == 2
    assert run(["convert", path, str(tmp_path / "x.pt"), "--vae", path]) == 2
    model = str(prepared / "model.safetensors")
    assert run(["convert", model, str(tmp_path / "m.pt"), "--save-model-as", "pt"]) == 2
    assert not list(tmp_path.glob("*.pt"))
    spoilt = tmp_path / "spoilt.pt"
    spoilt.write_bytes(Path(path).read_bytes()[:-300])
    assert run(["verify", str(spoilt)]) == 4
