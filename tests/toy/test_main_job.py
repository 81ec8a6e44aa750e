"""From a folder of images to a checkpoint that other programs load."""

import json
import signal
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from sdft.dataset.pixels import read_header
from sdft.errors import Interrupted, UserError
from sdft.events import (
    ItemRejected,
    Notice,
    RunFinished,
    RunStopped,
    SettingChosen,
    StepDone,
    ignore,
)
from sdft.jobs.sample import run_sample
from sdft.rundir import RunDir, RunLock


def test_images_of_nine_sizes_become_a_checkpoint_that_other_programs_load(toy, tmp_path, prepared):
    run = toy(max_train_steps=2, save_precision="fp16")
    assert run.error is None
    assert len({read_header(p) for p in (tmp_path / "images").glob("*.[pj][np]g")}) >= 7
    checkpoint = run.result.checkpoint
    assert checkpoint == tmp_path / "out" / "toy.safetensors"

    with safe_open(checkpoint, "pt") as file:
        names = set(file.keys())
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1"
        assert file.get_tensor("model.diffusion_model.out.2.weight").dtype == torch.float16
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert names == set(file.keys())
    assert {
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.middle_block.1.proj_in.weight",
        "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight",
        "first_stage_model.encoder.down.3.block.1.norm1.weight",
        "first_stage_model.quant_conv.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    } <= names

    pipeline = StableDiffusionPipeline.from_single_file(
        str(checkpoint), config=str(prepared / "model"), local_files_only=True, safety_checker=None
    )
    ours = load_file(checkpoint)["model.diffusion_model.out.2.weight"].float()
    assert torch.equal(pipeline.unet.conv_out.weight.float(), ours)

    drawn = run_sample(
        checkpoint,
        prompts=["a red circle"],
        output_dir=tmp_path / "drawn",
        width=128,
        height=128,
        num_steps=2,
        seed=3,
        emit=ignore,
    )
    with Image.open(drawn.images[0]) as picture:
        assert picture.size == (128, 128)
        assert "Seed: 3" in picture.text["parameters"]


def test_the_run_folder_tells_all(toy, tmp_path, read_events):
    run = toy(max_train_steps=2)
    folder = run.result.run
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.toml",
        "environment.json",
        "events.jsonl",
        "fates.jsonl",
        "log.txt",
        "run.json",
    } <= names
    assert "lock.json" not in names
    fates = [json.loads(line) for line in (folder / "fates.jsonl").read_text("utf-8").splitlines()]
    assert [fate["fate"] for fate in fates] == ["used"] * 9
    assert {"path", "reason", "size", "resized", "crop", "bucket", "repeats"} <= fates[0].keys()
    steps = [event for event in read_events() if event["event"] == "StepDone"]
    assert [step["step"] for step in steps] == [1, 2]
    assert {"epoch", "loss", "lr", "bucket"} <= steps[0].keys()
    assert run.result.as_json().keys() >= {
        "steps",
        "epochs",
        "loss",
        "checkpoint",
        "run",
        "resume",
    }


def test_two_runs_with_one_seed_give_the_same_losses_and_weights_to_the_bit(toy):
    one, other = toy("one"), toy("other")
    assert one.losses == other.losses
    assert len(one.losses) == 4
    assert_same_weights(one.result.checkpoint, other.result.checkpoint)


def test_another_seed_gives_other_losses(toy):
    assert toy("one").losses != toy("other", seed=2).losses


def test_a_seed_that_was_not_set_is_drawn_said_and_kept(toy, tmp_path):
    config = tmp_path / "config.toml"
    toy("with", max_train_steps=1)
    config.write_text(config.read_text("utf-8").replace("seed = 1", ""), "utf-8")
    run = toy("without", max_train_steps=1)
    (chosen,) = [one for one in run.of(SettingChosen) if one.name == "seed"]
    assert f"seed = {chosen.value}" in (run.result.run / "config.toml").read_text("utf-8")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer_type": "AdamW8bit", "train_batch_size": 2},
        {"gradient_accumulation_steps": 2, "train_text_encoder": True},
    ],
)
def test_a_run_stopped_and_resumed_is_the_run_that_was_never_stopped(toy, settings):
    whole = toy("whole", max_train_steps=7, **settings)

    def stop_after_three(event):
        if isinstance(event, StepDone) and event.step == 3:
            signal.raise_signal(signal.SIGINT)

    first = toy("halved", max_train_steps=7, listen=stop_after_three, **settings)
    assert isinstance(first.error, Interrupted)
    assert "--resume auto" in str(first.error)
    (stopped,) = first.of(RunStopped)
    assert (stopped.step, stopped.reason, stopped.resumable) == (3, "interrupted", True)

    rest = toy("halved", max_train_steps=7, resume="auto", **settings)
    assert rest.error is None
    assert first.losses | rest.losses == whole.losses
    assert sorted(rest.losses) == [4, 5, 6, 7]
    assert rest.of(RunFinished)[0].loss == whole.of(RunFinished)[0].loss
    assert_same_weights(whole.result.checkpoint, rest.result.checkpoint)


def test_the_events_of_a_resumed_run_have_each_step_once(toy, read_events):
    def stop_after_two(event):
        if isinstance(event, StepDone) and event.step == 2:
            signal.raise_signal(signal.SIGTERM)

    assert toy(listen=stop_after_two).error.exit_code == 5
    assert toy(resume="auto").error is None
    steps = [event["step"] for event in read_events() if event["event"] == "StepDone"]
    assert steps == [1, 2, 3, 4]


def test_more_steps_extend_a_finished_run(toy):
    whole = toy("whole", max_train_steps=6, lr_scheduler="constant")
    toy("short", max_train_steps=3, lr_scheduler="constant", save_state_on_train_end=True)
    more = toy("short", max_train_steps=6, lr_scheduler="constant", resume="auto")
    assert more.error is None
    assert sorted(more.losses) == [4, 5, 6]
    assert_same_weights(whole.result.checkpoint, more.result.checkpoint)


def test_a_state_of_other_settings_is_refused_with_the_name_of_what_differs(toy, tmp_path):
    toy(max_train_steps=2, save_state_on_train_end=True)
    changed = toy(max_train_steps=4, learning_rate=1e-5, resume="auto")
    assert isinstance(changed.error, UserError)
    assert "settings" in str(changed.error)

    (tmp_path / "images" / "001-x.txt").write_text("other words", "utf-8")
    caption = next((tmp_path / "images").glob("002*.txt"))
    caption.write_text("quite another picture", "utf-8")
    edited = toy(max_train_steps=4, resume="auto")
    assert "dataset" in str(edited.error)


def test_the_same_command_again_finds_its_work_done(toy):
    first = toy(max_train_steps=1)
    written = first.result.checkpoint.stat().st_mtime_ns
    again = toy(max_train_steps=1)
    assert again.result.already_done
    assert again.losses == {}
    assert first.result.checkpoint.stat().st_mtime_ns == written
    assert any("finished" in one.message for one in again.of(Notice))


def test_an_unfinished_run_names_both_ways_out_and_exits_2(toy):
    def stop_at_once(event):
        if isinstance(event, StepDone):
            signal.raise_signal(signal.SIGINT)

    toy(listen=stop_at_once)
    again = toy()
    assert again.error.exit_code == 2
    assert "--resume auto" in str(again.error)
    assert "--overwrite" in str(again.error)


def test_another_config_moves_the_old_run_and_its_checkpoint_aside(toy, tmp_path):
    first = toy(max_train_steps=1)
    old = first.result.checkpoint.read_bytes()
    toy(max_train_steps=2)
    assert (tmp_path / "out" / "toy-1.safetensors").read_bytes() == old
    assert (tmp_path / "out" / "toy.run-1" / "run.json").is_file()
    assert (tmp_path / "out" / "toy.safetensors").read_bytes() != old


def test_overwrite_keeps_the_old_files_until_the_new_ones_are_whole(toy, tmp_path):
    first = toy(max_train_steps=1)
    old = first.result.checkpoint.read_bytes()
    failed = toy(max_train_steps=1, overwrite=True, optimizer_args=["no_such_argument=1"])
    assert failed.error.exit_code == 2
    assert (tmp_path / "out" / "toy-1.safetensors").read_bytes() == old
    done = toy(max_train_steps=1, overwrite=True)
    assert done.error is None
    assert not list((tmp_path / "out").glob("toy.run-*/lock.json"))


def test_a_run_that_another_process_writes_is_left_alone(toy, tmp_path):
    with RunLock(RunDir.of(tmp_path / "out", "busy")):
        refused = toy("busy", max_train_steps=1)
    assert refused.error.exit_code == 2
    assert "is writing this run" in str(refused.error)
    assert toy("busy", max_train_steps=1).error is None


def test_a_truncated_image_is_named_and_the_others_are_trained_on(toy, tmp_path):
    toy("before", max_train_steps=1)
    victim = sorted((tmp_path / "images").glob("*.png"))[0]
    victim.write_bytes(victim.read_bytes()[:-200])
    run = toy("after", max_train_steps=1)
    assert run.error is None
    (rejected,) = run.of(ItemRejected)
    assert Path(rejected.path).name == victim.name
    fates = (run.result.run / "fates.jsonl").read_text("utf-8").splitlines()
    reasons = [json.loads(line)["reason"] for line in fates if "rejected" in line]
    assert len(reasons) == 1


@pytest.mark.parametrize("form", ["ckpt", "diffusers", "diffusers_safetensors"])
def test_every_form_holds_the_same_weights(toy, tmp_path, form):
    reference = load_file(toy("single", max_train_steps=1).result.checkpoint)
    other = toy("other", max_train_steps=1, save_model_as=form).result.checkpoint
    if form == "ckpt":
        assert other.name == "other.ckpt"
        state = torch.load(other, weights_only=True)["state_dict"]
        assert all(torch.equal(state[name], tensor) for name, tensor in reference.items())
    else:
        stem = "diffusion_pytorch_model"
        suffix = "bin" if form == "diffusers" else "safetensors"
        file = other / "unet" / f"{stem}.{suffix}"
        unet = load_file(file) if suffix == "safetensors" else torch.load(file, weights_only=True)
        expected = reference["model.diffusion_model.out.2.weight"]
        assert torch.equal(unet["conv_out.weight"], expected)


def test_checkpoints_and_states_come_under_their_names_and_old_ones_go(toy, tmp_path):
    run = toy(
        max_train_steps=7,
        save_every_n_steps=2,
        save_last_n_steps=2,
        save_every_n_epochs=1,
        save_state=True,
    )
    assert run.error is None
    names = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert names == [
        "toy-000001.safetensors",
        "toy-step00000004.safetensors",
        "toy-step00000006.safetensors",
        "toy.safetensors",
    ]
    states = sorted(path.name for path in (run.result.run / "states").iterdir())
    assert states == ["step00000004", "step00000005", "step00000006", "step00000007"]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []
