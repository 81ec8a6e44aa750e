"""`sdft plan`: a run told before it starts, and made to fit a card."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from sdft.planning.memory import plan_memory
from tests.toy_pictures import write_pictures
from tests.toy_project import prepare_toy

DATASET = """\
[general]
caption_extension = ".txt"
enable_bucket = true

[[datasets]]
resolution = 512
batch_size = 4

  [[datasets.subsets]]
  image_dir = 'images'
  num_repeats = 2
"""


@pytest.fixture
def dataset(tmp_path):
    write_pictures(tmp_path / "images", 9, side_px=64)
    (tmp_path / "dataset.toml").write_text(DATASET, encoding="utf-8")
    return tmp_path / "dataset.toml"


def test_the_plan_counts_as_the_buckets_do(sdft, dataset):
    plan = sdft("plan", dataset, "--vram", "24GB", "--max_train_epochs", "3", "--json").result
    buckets = sdft("bucket", dataset, "--json").result
    assert plan["images"] == buckets["used"] == 9
    assert plan["steps_per_epoch"] == buckets["batches"]
    assert plan["steps"] == 3 * buckets["batches"]
    assert plan["epochs"] == 3
    assert plan["problems"] == []
    resolutions = [one["resolution"] for one in buckets["buckets"]]
    assert sorted(one["resolution"] for one in plan["buckets"]) == sorted(resolutions)


def test_the_worst_bucket_comes_first_and_its_parts_are_the_whole(sdft, dataset):
    plan = sdft("plan", dataset, "--vram", "24GB", "--json").result
    peaks = [one["peak_bytes"] for one in plan["buckets"]]
    assert peaks[0] == max(peaks)
    for one in plan["buckets"]:
        assert sum(one["parts"].values()) == one["peak_bytes"]
    assert plan["memory"] == plan["buckets"][0]


def test_many_gpus_are_planned_where_they_are_asked_for(sdft, dataset):
    assert sdft("plan", dataset, "--vram", "80GB", "--json").result["scaling"] is None
    asked = ("--gpus", "48", "--link", "100Gb", "--vram", "80GB")
    scaling = sdft("plan", dataset, *asked, "--json").result["scaling"]
    assert (scaling["card"], scaling["link"], scaling["batch_size"]) == ("H100", "100Gb", 4)
    ddp = scaling["schemes"]["ddp"]
    assert [row["gpus"] for row in ddp] == [1, 2, 4, 8, 16, 32, 48]
    # SD 1.5's U-Net in float32: each GPU sends nearly twice its gradients.
    assert ddp[-1]["sent_bytes"] == pytest.approx(2 * 47 / 48 * 4 * 859_520_964, rel=1e-6)
    assert ddp[0]["efficiency"] == 1 > ddp[3]["efficiency"] > ddp[4]["efficiency"]
    text = sdft("plan", dataset, *asked).out
    assert "on many GPUs (H100, 100Gb between machines" in text
    assert "zero3 |   48 |" in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--gpus", "many"), "--gpus"),
        (("--gpus", "0"), "too few"),
        (("--gpus", "8", "--link", "fast"), "400Gb"),
    ],
)
def test_what_is_no_number_of_gpus_or_no_link_is_refused(sdft, dataset, asked, said):
    ran = sdft("plan", dataset, *asked)
    assert ran.code == 2
    assert said in ran.err


def test_the_learning_rate_is_drawn_from_the_first_step_to_the_last(sdft, dataset):
    asked = ("--lr_scheduler", "cosine", "--learning_rate", "1e-5", "--max_train_steps", "500")
    plan = sdft("plan", dataset, *asked, "--json").result
    first, last = plan["learning_rate"][0], plan["learning_rate"][-1]
    assert first == [0, 1e-5]
    assert last[0] == 499
    assert last[1] < 1e-8
    text = sdft("plan", dataset, *asked).out
    assert "500 in " in text
    assert text.count("*") == len(plan["learning_rate"])


@pytest.mark.parametrize("size", ["24GB", "12GB", "8GB", "6GB", "5GB"])
def test_what_is_changed_makes_the_run_fit(sdft, dataset, size, tmp_path):
    plan = sdft("plan", dataset, "--vram", size, "--json").result
    usable = plan["card"]["total_bytes"] * 0.95 - (600 << 20)
    if plan["fits"]:
        assert plan["memory"]["peak_bytes"] <= usable
        assert plan["changes"] == []
        return
    assert plan["memory"]["peak_bytes"] > usable
    assert plan["changed_peak_bytes"] <= usable
    values = [f"--{name}" for one in plan["changes"] for name in one["values"]]
    assert values
    fitted = tmp_path / "fit.toml"
    sdft("plan", dataset, "--vram", size, "--fit", fitted)
    fitted.write_text(f"dataset_config = '{dataset}'\n{fitted.read_text(encoding='utf-8')}")
    again = sdft("plan", fitted, "--vram", size, "--json").result
    assert again["fits"]
    assert again["memory"]["peak_bytes"] == plan["changed_peak_bytes"]


def test_what_was_once_computed_is_not_computed_again(sdft, dataset):
    asked = ("plan", dataset, "--vram", "80GB", "--freeze", "IN00", "--json")
    first = sdft(*asked).result
    computed = plan_memory.cache_info().misses
    second = sdft(*asked).result
    # Others write to the disk meanwhile.
    del first["disk"]["free_bytes"], second["disk"]["free_bytes"]
    assert second == first
    assert plan_memory.cache_info().misses == computed > 0


def test_a_smaller_card_never_asks_for_less(sdft, dataset):
    def cost(size):
        plan = sdft("plan", dataset, "--vram", size, "--json").result
        return plan["changed_peak_bytes"] or plan["memory"]["peak_bytes"]

    peaks = [cost(size) for size in ("40GB", "12GB", "8GB", "6GB", "4GB", "1GB")]
    assert peaks == sorted(peaks, reverse=True)


def test_what_a_person_set_is_never_changed(sdft, dataset):
    asked = ("--optimizer_type", "AdamW", "--mixed_precision", "no", "--vram", "8GB", "--json")
    plan = sdft("plan", dataset, *asked).result
    changed = {name for one in plan["changes"] for name in one["values"]}
    assert changed
    assert not changed & {"optimizer_type", "mixed_precision", "full_bf16"}


def test_a_card_that_is_too_small_is_said(sdft, dataset):
    text = sdft("plan", dataset, "--vram", "1GB").out
    assert "batch_size" in text
    assert "It does not fit" in text


def test_a_config_file_is_fitted_in_place(sdft, dataset, tmp_path):
    config = tmp_path / "config.toml"
    text = "# my run\r\ndataset_config = 'dataset.toml' # these\r\n\r\nlearning_rate   = 3e-6\r\n"
    config.write_bytes(text.encode())
    ran = sdft("plan", config, "--vram", "6GB", "--fit", config, "--json")
    assert ran.code == 0
    written = config.read_bytes().decode()
    assert written.startswith(text)
    added = written.removeprefix(text).split("\r\n")
    assert 'mixed_precision = "bf16"' in added
    assert "\n" not in "".join(added)


def test_several_processes_share_the_steps_and_hold_gradients_twice(sdft, dataset):
    alone = sdft("plan", dataset, "--vram", "24GB", "--json").result
    two = sdft("plan", dataset, "--vram", "24GB", "--num_processes", "2", "--json").result
    assert two["effective_batch"] == [2 * size for size in alone["effective_batch"]]
    assert two["steps_per_epoch"] <= alone["steps_per_epoch"]
    more = two["memory"]["peak_bytes"] - alone["memory"]["peak_bytes"]
    gradients = alone["memory"]["parts"]["weights"]
    assert 0.9 < more / gradients < 1.1
    small = sdft("plan", dataset, "--vram", "6GB", "--num_processes", "2", "--json").result
    changed = {name for one in small["changes"] for name in one["values"]}
    assert "fused_backward_pass" not in changed
    assert "full_bf16" in changed
    shared = ("--num_processes", "2", "--ddp_gradient_as_bucket_view")
    lean = sdft("plan", dataset, "--vram", "24GB", *shared, "--json").result
    assert lean["memory"]["peak_bytes"] == alone["memory"]["peak_bytes"]


def test_a_real_model_file_gives_its_own_sizes(sdft, tmp_path):
    prepare_toy(tmp_path / "demo")
    plan = sdft("plan", tmp_path / "demo" / "config.toml", "--vram", "12GB", "--json").result
    assert plan["model"] == "model.safetensors"
    assert plan["memory"]["parts"]["weights"] < 10**8
    assert plan["fits"]
    assert abs(plan["disk"]["checkpoint_bytes"] / _size(tmp_path / "demo") - 1) < 0.05


def _size(folder):
    return (folder / "model.safetensors").stat().st_size


def test_what_drawing_samples_takes_is_said(sdft, dataset, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog --w 768 --h 1024\n", "utf-8")
    low = (dataset, "--vram", "8GB", "--optimizer_type", "AdamW8bit", "--full_bf16")
    low += ("--mixed_precision", "bf16")
    asked = (*low, "--sample_prompts", prompts)
    plan = sdft("plan", *asked, "--json").result
    assert plan["sampling_bytes"] > plan["memory"]["parts"]["weights"] + (1 << 30)
    assert "while a picture is drawn" in sdft("plan", *asked).out
    small = sdft("plan", *asked, "--vram", "4GB").out
    assert "the run will go on without them" in small
    assert sdft("plan", *low, "--json").result["sampling_bytes"] == 0
    assert "while a picture is drawn" not in sdft("plan", *low).out


def test_on_a_processor_it_says_how_long(sdft, dataset):
    ran = sdft("plan", dataset, "--device", "cpu")
    assert "on this processor" in ran.out
    plan = sdft("plan", dataset, "--device", "cpu", "--json").result
    assert plan["card"] is None
    assert plan["fits"] is None
    # 1600 steps of four images and 2.4 TFLOP each: days, not minutes and not years.
    assert 3600 < plan["duration_s"] < 3600 * 24 * 365


def test_it_speaks_japanese(sdft, dataset, monkeypatch):
    monkeypatch.setenv("SDFT_LANG", "ja")
    text = sdft("plan", dataset, "--vram", "6GB").out
    assert "学習率" in text
    assert "収まりません" in text


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--vram", "lots"), "is not a size"),
        (("--optimizer_type", "some.module.Optimizer"), "some.module.Optimizer"),
        (("--hypernetwork",), "hypernetwork"),
        (("--fsdp", "--num_processes", "2"), "fsdp"),
    ],
)
def test_what_cannot_be_planned_is_named(sdft, dataset, words, names):
    ran = sdft("plan", dataset, *words)
    assert names in ran.out + ran.err
    assert ran.code == (2 if words[0] == "--vram" else 0)


@pytest.mark.skipif(sys.platform == "win32", reason="a program of another name")
def test_the_card_that_nvidias_program_names_is_planned_for(sdft, dataset, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '12282, 11000, 8.6, NVIDIA GeForce RTX 3060'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    plan = sdft("plan", dataset, "--json").result
    assert plan["card"]["name"] == "NVIDIA GeForce RTX 3060"
    assert plan["card"]["free_bytes"] == 11000 << 20
    assert plan["changes"]
    assert plan["duration_s"] > 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert sdft("plan", dataset, "--json").result["card"] is None
