"""`accelerate launch --cpu --num_processes 2` starts one process; whoever asked is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from sdft.errors import UserError
from sdft.processes import require_all_started

WORDS = ("--cpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")


def environment_of(num_processes):
    """Return what accelerate's own launcher gives the program that it starts."""
    line = [*WORDS, "--num_processes", str(num_processes), "-m", "sdft", "train", "config.toml"]
    command, environment = prepare_simple_launcher_cmd_env(launch_command_parser().parse_args(line))
    assert command[1:] == ["-m", "sdft", "train", "config.toml"], "one command, once"
    return environment


@pytest.fixture
def bare(monkeypatch):
    """An environment in which nobody has started anything."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)


def test_a_lost_process_is_an_error_that_names_the_option(bare):
    with pytest.raises(
        UserError, match="was asked for several processes and has started one"
    ) as it:
        require_all_started("train", environment_of(2))
    assert "sdft train ... --num_processes 2" in str(it.value)


def test_one_process_is_what_was_asked_for(bare):
    require_all_started("train", environment_of(1))
    require_all_started("train", environment_of(2) | {"WORLD_SIZE": "2"})


@pytest.mark.long
def test_the_real_command_ends_with_that_error(bare, tmp_path):
    config = tmp_path / "config.toml"
    (tmp_path / "images").mkdir()
    config.write_text(
        f"pretrained_model_name_or_path = '{tmp_path}'\noutput_dir = '{tmp_path / 'out'}'\n"
        f"train_data_dir = '{tmp_path / 'images'}'\nresolution = 512\n"
    )
    starter = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *WORDS]
    line = [*starter, "--num_processes", "2", "-m", "sdft", "train", str(config)]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    assert "--num_processes 2 starts them itself" in ran.stderr
    assert ran.returncode != 0
    assert not (tmp_path / "out").exists()


FSDP2 = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: 'no'
num_machines: 1
num_processes: 2
machine_rank: 0
fsdp_config:
  fsdp_version: 2
  fsdp_reshard_after_forward: true
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: BasicTransformerBlock
  fsdp_state_dict_type: SHARDED_STATE_DICT
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_accelerate_launch_with_its_own_fsdp2_file_spreads_the_weights(bare, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "toy")
    (tmp_path / "fsdp2.yaml").write_text(FSDP2, "utf-8")
    starter = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    line = [*starter, "--config_file", str(tmp_path / "fsdp2.yaml"), "-m", "sdft", "train"]
    line += ["config.toml", "--max_train_steps", "2", "--device", "cpu", "--output_dir", "out"]
    ran = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path / "toy")
    assert ran.returncode == 0, ran.stderr
    found = re.search(r"over 2 processes: this one holds ([\d,]+) of ([\d,]+)", ran.stderr)
    held, total = (int(number.replace(",", "")) for number in found.groups())
    assert total / 3 < held < 0.52 * total
    assert "fsdp_state_dict_type (SHARDED_STATE_DICT) is not taken" in ran.stderr
    # One whole file, whoever holds what.
    assert list((tmp_path / "toy" / "out").glob("*.safetensors"))
