"""Averages, masks, frozen parts, weights of words, precisions: from the settings to the files."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image, ImageOps
from safetensors.torch import load_file

from sdft.errors import Interrupted, UserError
from sdft.events import CheckpointSaved, Notice, SettingChosen, StepDone

UNET = "model.diffusion_model."


def unet_of(path):
    return {name: tensor for name, tensor in load_file(path).items() if name.startswith(UNET)}


def changed(path, base):
    """Return the names of the U-Net's weights that differ from the base model's."""
    before = unet_of(base)
    return {name for name, tensor in unet_of(path).items() if not torch.equal(tensor, before[name])}


def same(one, other):
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def stopping_after(step):
    def listen(event):
        if isinstance(event, StepDone) and event.step == step:
            signal.raise_signal(signal.SIGINT)

    return listen


def interrupted_and_resumed(toy, name, **settings):
    """Return the checkpoint of a run that was stopped and went on."""
    whole = toy(name + "-whole", max_train_steps=4, **settings)
    assert whole.error is None, whole.error
    first = toy(
        name,
        max_train_steps=4,
        save_state=True,
        save_every_n_steps=2,
        listen=stopping_after(3),
        **settings,
    )
    assert isinstance(first.error, Interrupted), first.error
    second = toy(
        name, max_train_steps=4, save_state=True, save_every_n_steps=2, resume="auto", **settings
    )
    assert second.error is None, second.error
    assert second.result.resume is not None
    return whole.result.checkpoint, second.result.checkpoint


class TestAverage:
    def test_the_checkpoint_holds_the_average_and_the_state_the_weights(self, toy):
        plain = toy("plain", save_state_on_train_end=True)
        averaged = toy("averaged", ema=True, ema_decay=0.5, save_state_on_train_end=True)
        assert averaged.losses == plain.losses
        assert not same(plain.result.checkpoint, averaged.result.checkpoint)
        state = averaged.result.run / "states" / "step00000004"
        trained = load_file(state / "unet.safetensors")
        ema = load_file(state / "ema.safetensors")
        assert ema["num_updates"].item() == 4
        name = "conv_in.weight"
        assert not torch.equal(trained[name], ema[f"unet.{name}"])
        saved = unet_of(averaged.result.checkpoint)[UNET + "input_blocks.0.0.weight"]
        assert torch.equal(saved, ema[f"unet.{name}"])

    def test_a_resumed_average_has_the_same_bits(self, toy):
        whole, resumed = interrupted_and_resumed(toy, "ema", ema=True, ema_decay=0.9)
        assert same(whole, resumed)


SCHEDULE_FREE = {"optimizer_type": "AdamWScheduleFree", "learning_rate": 2e-3}


class TestScheduleFree:
    def test_what_is_saved_is_the_evaluation_weights_and_saving_changes_nothing(self, toy):
        pytest.importorskip("schedulefree", reason="schedulefree is not installed")
        seldom = toy("seldom", save_state_on_train_end=True, **SCHEDULE_FREE)
        often = toy("often", save_every_n_steps=1, **SCHEDULE_FREE)
        assert seldom.error is often.error is None
        assert len(often.of(CheckpointSaved)) == 4
        assert often.losses == seldom.losses
        assert same(seldom.result.checkpoint, often.result.checkpoint)
        state = seldom.result.run / "states" / "step00000004" / "unet.safetensors"
        trained = load_file(state)["conv_in.weight"]
        saved = unet_of(seldom.result.checkpoint)[UNET + "input_blocks.0.0.weight"]
        assert not torch.equal(trained, saved)

    def test_a_resumed_run_has_the_same_bits(self, toy):
        pytest.importorskip("schedulefree", reason="schedulefree is not installed")
        whole, resumed = interrupted_and_resumed(toy, "free", **SCHEDULE_FREE)
        assert same(whole, resumed)


class TestFreezing:
    def test_frozen_blocks_and_names_keep_their_bits_and_the_rest_moves(self, toy, tmp_path):
        run = toy(freeze=["IN04", "unet.*.attn1.*"], max_train_steps=1)
        assert run.error is None, run.error
        moved = changed(run.result.checkpoint, tmp_path / "model.safetensors")
        assert not any(name.startswith(UNET + "input_blocks.4.") for name in moved)
        assert not any(".attn1." in name for name in moved)
        assert any(".attn2." in name for name in moved)
        assert any(name.startswith(UNET + "input_blocks.5.") for name in moved)
        (notice,) = [one for one in run.of(Notice) if one.topic == "freeze"]
        assert "are not trained" in notice.message

    def test_only_the_named_part_is_trained_with_block_rates(self, toy, tmp_path):
        rates = ["0"] * 29
        rates[13] = "1e-3"
        run = toy(block_lr=",".join(rates), max_train_steps=1)
        assert run.error is None, run.error
        moved = changed(run.result.checkpoint, tmp_path / "model.safetensors")
        assert moved
        assert all(name.startswith(UNET + "middle_block.0.") for name in moved)

    def test_a_part_of_the_text_encoder_alone(self, toy, tmp_path):
        run = toy(
            train_text_encoder=True,
            lr_by_name=["unet.*=0", "text_encoder.encoder.layers.0.*=1e-3"],
            learning_rate_te=0,
            max_train_steps=1,
        )
        assert run.error is None, run.error
        assert not changed(run.result.checkpoint, tmp_path / "model.safetensors")
        before, after = load_file(tmp_path / "model.safetensors"), load_file(run.result.checkpoint)
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert moved
        assert all(".encoder.layers.0." in name for name in moved)

    def test_layers_that_clip_skip_passes_over_stay(self, toy, tmp_path):
        run = toy(train_text_encoder=True, clip_skip=2, max_train_steps=1)
        assert run.error is None, run.error
        before, after = load_file(tmp_path / "model.safetensors"), load_file(run.result.checkpoint)
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert any(".encoder.layers.1." in name for name in moved)
        assert not any(".encoder.layers.2." in name for name in moved)

    def test_a_pattern_that_fits_nothing_is_refused(self, toy):
        run = toy(freeze=["unet.midblock.*"])
        assert isinstance(run.error, UserError)
        assert "unet.mid_block" in str(run.error)


class TestMasks:
    def masked(self, toy, tmp_path, name, value, **settings):
        """Train with mask pictures whose left half is 255 and whose right half is `value`.

        Some run has to have laid out the files before.
        """
        masks = tmp_path / name
        masks.mkdir()
        for path in sorted((tmp_path / "images").iterdir()):
            if path.suffix != ".txt":
                with Image.open(path) as image:
                    width, height = ImageOps.exif_transpose(image).size
                mask = np.full((height, width), value, dtype=np.uint8)
                mask[:, : width // 2] = 255
                Image.fromarray(mask).save(masks / f"{path.stem}.png")
        dataset = tmp_path / "dataset.toml"
        plain = dataset.read_text("utf-8")
        dataset.write_text(plain + f"  conditioning_data_dir = '{masks}'\n", "utf-8")
        try:
            return toy(name, masked_loss=True, max_train_steps=2, **settings)
        finally:
            dataset.write_text(plain, "utf-8")

    def test_white_masks_train_as_none_do(self, toy, tmp_path):
        plain = toy("plain", max_train_steps=2)
        white = self.masked(toy, tmp_path, "white", 255)
        assert white.error is None, white.error
        assert white.losses == pytest.approx(plain.losses, rel=1e-6)

    def test_half_masks_change_the_loss_and_as_the_reference_they_halve_it(self, toy, tmp_path):
        plain = toy("plain", max_train_steps=1)
        over_mask = self.masked(toy, tmp_path, "half", 0)
        assert over_mask.error is None, over_mask.error
        as_reference = self.masked(toy, tmp_path, "same", 0, masked_loss_mean="picture")
        assert over_mask.losses[1] != plain.losses[1]
        assert as_reference.losses[1] == pytest.approx(over_mask.losses[1] / 2, rel=0.1)

    def test_an_image_without_a_mask_is_named(self, toy, tmp_path):
        assert toy("first", max_train_steps=1).error is None
        (tmp_path / "masks").mkdir()
        dataset = tmp_path / "dataset.toml"
        text = dataset.read_text("utf-8")
        dataset.write_text(text + "  conditioning_data_dir = 'masks'\n", "utf-8")
        run = toy("masked", masked_loss=True)
        assert "9 images have no mask" in str(run.error)

    def test_alpha_masks_are_taken_where_asked(self, toy, tmp_path):
        run = toy("alpha", alpha_mask=True, max_train_steps=1)
        assert run.error is None, run.error
        assert list((tmp_path).rglob("masks")) or run.losses


class TestWords:
    def test_weighted_captions_change_what_is_learnt_only_where_there_are_weights(
        self, toy, tmp_path
    ):
        plain = toy("plain", max_train_steps=1)
        unchanged = toy("unchanged", max_train_steps=1, weighted_captions=True)
        assert unchanged.losses == plain.losses
        for path in (tmp_path / "images").glob("*.txt"):
            path.write_text("(" + path.read_text("utf-8").strip() + ":1.4) picture", "utf-8")
        weighted = toy("weighted", max_train_steps=1, weighted_captions=True)
        literal = toy("literal", max_train_steps=1)
        assert weighted.error is literal.error is None
        assert len({run.losses[1] for run in (plain, weighted, literal)}) == 3


@pytest.fixture
def fresh_accelerate():
    """accelerate keeps the precision of a process' first run; a command is a process of its own."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("fresh_accelerate")
class TestPrecision:
    @pytest.mark.parametrize("rounding", [True, False])
    def test_full_bf16_trains_and_resumes_to_the_same_bits(self, toy, rounding):
        whole, resumed = interrupted_and_resumed(
            toy,
            "bf16",
            mixed_precision="bf16",
            full_bf16=True,
            stochastic_rounding=rounding,
        )
        assert {tensor.dtype for tensor in unet_of(whole).values()} == {torch.bfloat16}
        assert same(whole, resumed)

    def test_full_fp16_on_a_cpu_becomes_float32_and_says_so(self, toy):
        run = toy(mixed_precision="fp16", full_fp16=True, max_train_steps=1)
        assert run.error is None, run.error
        said = {one.name: one.value for one in run.of(SettingChosen)}
        assert said["mixed_precision"] == "no"
        assert said["full_fp16"] is False
        assert {tensor.dtype for tensor in unet_of(run.result.checkpoint).values()} == {
            torch.float32
        }

    def test_the_attention_that_runs_is_said_once(self, toy):
        run = toy(max_train_steps=1, xformers=True)
        (notice,) = [one for one in run.of(Notice) if one.topic == "attention"]
        assert notice.message.startswith("attention: torch's scaled_dot_product_attention")
        assert "xformers" in notice.message


class TestOptimizersAndSchedules:
    @pytest.mark.parametrize("name", ["Prodigy", "Adafactor"])
    def test_an_optimizer_trains_and_resumes_to_the_same_bits(self, toy, name):
        if name == "Prodigy":
            pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
        rate = 1.0 if name == "Prodigy" else 1e-3
        whole, resumed = interrupted_and_resumed(
            toy, name, optimizer_type=name, learning_rate=rate, lr_scheduler="constant"
        )
        assert same(whole, resumed)

    def test_a_scheduler_class_is_stepped_once_an_update_whatever_the_accumulation(self, toy):
        run = toy(
            lr_scheduler_type="torch.optim.lr_scheduler.StepLR",
            lr_scheduler_args=["step_size=2", "gamma=0.5"],
            learning_rate=1e-3,
            gradient_accumulation_steps=2,
            max_train_steps=5,
        )
        assert run.error is None, run.error
        rates = [one.lr for one in run.of(StepDone)]
        assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])

    def test_two_rates_for_prodigy_become_one_and_it_is_said(self, toy):
        pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
        run = toy(
            optimizer_type="Prodigy",
            learning_rate=1.0,
            train_text_encoder=True,
            learning_rate_te=0.5,
            max_train_steps=1,
        )
        assert run.error is None, run.error
        assert any("takes one learning rate" in one.message for one in run.of(Notice))
