"""States are whole or recognised as damaged; checkpoints follow sd-scripts' names and rules."""

import json

import pytest
import torch

from sdft.errors import DataError, EnvironmentFault
from sdft.rundir import state_name
from sdft.train.checkpoint import SaveRules, epoch_stem, file_name, step_stem
from sdft.train.scaler import LossScaler
from sdft.train.state import (
    Identity,
    Progress,
    damage,
    newest_state,
    read_module,
    read_optimizer,
    read_state,
)
from sdft.train.state_write import StateContent, write_state

PROGRESS = Progress(
    step=3, epoch=2, steps_into_epoch=1, epoch_loss_sum=0.5, epoch_items=4, recent_losses=(0.1, 0.2)
)
MOMENT = torch.tensor([1, 200], dtype=torch.uint8)


def content(**changes):
    values = {
        "modules": {"unet": {"weight": torch.arange(6.0).reshape(2, 3)}},
        "optimizer": {
            "optimizer": {
                "state": {0: {"step": torch.tensor(3.0), "moment": MOMENT}, 1: {"moment": MOMENT}},
                "param_groups": [{"betas": (0.9, 0.99), "lr": 0.1, "params": [0, 1]}],
            }
        },
        "progress": PROGRESS,
        "identity": Identity(parts={"settings": "abc"}),
        "events_bytes": 77,
    }
    return StateContent(**(values | changes))


def save(folder, step=3):
    return write_state(folder / state_name(step), content())


def test_a_state_comes_back_as_it_was_saved(tmp_path):
    save(tmp_path)
    state = read_state(tmp_path / "step00000003")
    assert state.progress == PROGRESS
    assert state.events_bytes == 77
    assert state.identity == Identity(parts={"settings": "abc"})
    assert torch.equal(read_module(state.path, "unet")["weight"], torch.arange(6.0).reshape(2, 3))
    optimizer = read_optimizer(state.path)["optimizer"]
    assert optimizer["state"][0]["step"].item() == 3.0
    assert optimizer["state"][0]["moment"].dtype == torch.uint8
    # One tensor in two places is stored once and is one again.
    assert optimizer["state"][0]["moment"] is optimizer["state"][1]["moment"]
    assert optimizer["param_groups"] == [{"betas": (0.9, 0.99), "lr": 0.1, "params": [0, 1]}]


def test_copies_do_not_change_with_what_is_trained(tmp_path):
    weight = torch.zeros(3)
    live = content(modules={"unet": {"weight": weight}})
    copy = live.copied()
    weight += 1
    assert copy.modules["unet"]["weight"].tolist() == [0, 0, 0]
    assert copy.num_bytes == live.num_bytes == 3 * 4 + 4 + 2


def test_weights_that_are_no_numbers_never_become_a_state(tmp_path):
    broken = {"unet": {"conv.weight": torch.tensor([1.0, float("nan")])}}
    with pytest.raises(DataError, match=r"step 3 .* unet, conv\.weight"):
        write_state(tmp_path / "step00000003", content(modules=broken))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_gives_back_something_else_is_found_before_the_state_counts(
    tmp_path, monkeypatch
):
    import sdft.train.state_write as module

    def flip(folder):
        victim = folder / "unet.safetensors"
        victim.write_bytes(victim.read_bytes()[:-1] + b"x")
        return damage(folder)

    monkeypatch.setattr(module, "damage", flip)
    with pytest.raises(EnvironmentFault, match=r"unet\.safetensors has been altered"):
        save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["unet.safetensors", "optimizer.safetensors", "optimizer.json", "progress.json"]
)
def test_a_flipped_byte_is_found_and_the_state_before_is_used(tmp_path, name):
    save(tmp_path, step=3)
    save(tmp_path, step=6)
    victim = tmp_path / "step00000006" / name
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert name in damage(tmp_path / "step00000006")
    state, passed_over = newest_state(tmp_path)
    assert state.path.name == "step00000003"
    assert [(path.name, reason) for path, reason in passed_over] == [
        ("step00000006", f"{name} has been altered")
    ]


def test_a_missing_file_is_named(tmp_path):
    save(tmp_path)
    (tmp_path / "step00000003" / "unet.safetensors").unlink()
    with pytest.raises(DataError, match=r"unet\.safetensors is missing"):
        read_state(tmp_path / "step00000003")


def test_an_unfinished_state_is_not_taken_for_one(tmp_path):
    save(tmp_path)
    (tmp_path / "step00000009.part-0a1b2c3d").mkdir()
    state, passed_over = newest_state(tmp_path)
    assert state.path.name == "step00000003"
    assert passed_over == []


@pytest.mark.parametrize(
    "value",
    [
        {"object": "os.system"},
        {"tensor": "no such one"},
        {"tensor": ["t0"]},
        {"dtype": "load"},
        {"dict": [[None, 1]]},
        {"dict": [["a"]]},
        {"list": 5},
        {"tuple": [], "list": []},
        [1],
        5,
        json.loads('{"list": [' * 50 + "]}" * 50),
    ],
)
def test_an_optimizer_file_with_anything_but_tensors_and_plain_values_is_refused(tmp_path, value):
    save(tmp_path)
    (tmp_path / "step00000003" / "optimizer.json").write_text(json.dumps(value), "ascii")
    with pytest.raises(DataError):
        read_optimizer(tmp_path / "step00000003")


def test_an_optimizer_state_that_no_file_can_hold_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot hold function"):
        write_state(tmp_path / "step00000003", content(optimizer={"hook": lambda: None}))


def test_a_loss_scale_comes_back_with_the_state(tmp_path):
    scaler = LossScaler()
    for finite in (True, True, False, True):
        scaler.update(finite=finite)
    write_state(tmp_path / "step00000003", content(optimizer={"own_scaler": scaler.state_dict()}))
    restored = LossScaler()
    restored.load_state_dict(read_optimizer(tmp_path / "step00000003")["own_scaler"])
    assert restored.state_dict() == scaler.state_dict() != LossScaler().state_dict()


def test_identity_names_what_differs():
    old = Identity(parts={"settings": "a", "model": "m", "gone": "x"})
    new = Identity(parts={"settings": "b", "model": "m", "extra": "y"})
    assert old.differences(new) == ["settings", "gone", "extra"]


def test_names_are_those_of_sd_scripts():
    assert file_name(step_stem("cats", 100), "safetensors") == "cats-step00000100.safetensors"
    assert file_name(epoch_stem("cats", 1), "ckpt") == "cats-000001.ckpt"
    assert file_name("cats", "diffusers") == "cats"


def test_saves_come_every_n_and_never_at_the_last_which_is_saved_anyway():
    rules = SaveRules(every_n_steps=2, every_n_epochs=3)
    assert [s for s in range(1, 9) if rules.after_step(s, 8)] == [2, 4, 6]
    assert [e for e in range(1, 10) if rules.after_epoch(e, 9)] == [3, 6]


def test_keep_last_rules_remove_what_sd_scripts_removes():
    rules = SaveRules(every_n_steps=10, last_n_steps=25, every_n_epochs=2, last_n_epochs=2)
    kept_steps, kept_epochs = set(), set()
    for step in range(10, 101, 10):
        kept_steps.add(step)
        kept_steps.discard(rules.step_to_remove(step))
    for epoch in range(2, 11, 2):
        kept_epochs.add(epoch)
        kept_epochs.discard(rules.epoch_to_remove(epoch))
    assert kept_steps == {80, 90, 100}
    assert kept_epochs == {8, 10}
