"""What a run chooses for itself to fit its card, and that a resumed one keeps it."""

from __future__ import annotations

import pytest

from sdft.config.load import load_config
from sdft.config.write import resolved_toml
from sdft.events import MemoryPlanned, Notice, SettingChosen
from sdft.jobs.sources import plan_dataset
from sdft.jobs.training.card_fit import earlier_settings, fit_to_card
from sdft.planning.cards import Card
from tests.toy_pictures import write_pictures

GB = 10**9

DATASET = """\
[[datasets]]
resolution = 512
batch_size = 2
  [[datasets.subsets]]
  image_dir = 'images'
  caption_extension = ".txt"
"""


def card(size_gb, *, has_bf16=True):
    size = int(size_gb * GB)
    return Card(name="a card", total_bytes=size, free_bytes=size, has_bf16=has_bf16)


@pytest.fixture
def fitted(tmp_path):
    """Return a function: what is chosen for a card, with the settings that a person gave."""
    write_pictures(tmp_path / "images", 6, side_px=64)
    (tmp_path / "dataset.toml").write_text(DATASET, encoding="utf-8")

    def run(size_gb, flags=None, *, earlier=None, has_bf16=True):
        config = load_config(tmp_path / "dataset.toml", flags or {}, tmp_path)
        dataset = plan_dataset(config, emit=lambda event: None)
        said = []
        chosen, planned = fit_to_card(
            config,
            dataset,
            card(size_gb, has_bf16=has_bf16),
            earlier=earlier or {},
            emit=said.append,
        )
        return chosen, planned, said

    return run


def names_chosen(said):
    return [one.name for one in said if isinstance(one, SettingChosen)]


def test_a_large_card_gets_what_the_settings_say(fitted):
    config, planned, said = fitted(48)
    assert names_chosen(said) == []
    assert config.training.mixed_precision == "no"
    (memory,) = [one for one in said if isinstance(one, MemoryPlanned)]
    assert memory.peak_bytes == max(planned.values())


def test_a_small_card_gets_settings_that_fit_and_each_is_said(fitted):
    config, planned, said = fitted(6)
    assert config.training.full_bf16
    assert config.training.optimizer_type == "AdamW8bit"
    assert max(planned.values()) < 6 * GB
    assert {"mixed_precision", "optimizer_type", "full_bf16"} <= set(names_chosen(said))
    written = resolved_toml(config)
    assert 'optimizer_type = "AdamW8bit"' in written
    assert "full_bf16 = true" in written


def test_what_a_person_set_stays_and_the_lack_is_said(fitted):
    config, _, said = fitted(4, {"optimizer_type": "AdamW", "mixed_precision": "no"})
    assert config.training.optimizer_type == "AdamW"
    assert config.training.mixed_precision == "no"
    warnings = [one for one in said if isinstance(one, Notice) and one.severity == "warning"]
    assert "hardly fit" in warnings[0].message


def test_an_old_card_gets_fp16(fitted):
    config, _, _ = fitted(13, has_bf16=False)
    assert config.training.mixed_precision == "fp16"
    assert not config.training.full_bf16


def test_a_resumed_run_keeps_what_it_chose_on_whatever_card(fitted):
    first, _, _ = fitted(6)
    again, _, said = fitted(48, earlier=dict(first.training))
    assert again.training == first.training
    reasons = {one.reason for one in said if isinstance(one, SettingChosen)}
    assert reasons == {"the run began with it"}


def test_a_person_may_set_it_otherwise_on_resume(fitted):
    first, _, _ = fitted(6)
    again, _, _ = fitted(48, {"gradient_checkpointing": False}, earlier=dict(first.training))
    assert not again.training.gradient_checkpointing
    assert again.training.optimizer_type == "AdamW8bit"


def test_a_new_run_has_no_earlier_settings(tmp_path):
    from sdft.rundir import RunDir

    assert earlier_settings(RunDir.of(tmp_path, "run"), None) == {}
