"""What accelerate's own launcher says in the environment becomes settings, or is answered."""

from __future__ import annotations

from argparse import Namespace

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from sdft.config.load import load_config
from sdft.errors import ConfigError


def parsed(folder, *, mixed_precision="no", **config) -> Namespace:
    """Return what accelerate's launcher makes of a file of its own."""
    file = folder / "accelerate.yaml"
    everything = {
        "compute_environment": "LOCAL_MACHINE",
        "num_machines": 1,
        "num_processes": 2,
        "machine_rank": 0,
        "mixed_precision": mixed_precision,
        "use_cpu": False,
    }
    file.write_text(yaml.safe_dump(everything | config), "utf-8")
    line = ["--config_file", str(file), "-m", "sdft", "train", "config.toml"]
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(line))
    arguments.deepspeed_fields_from_accelerate_config = ""
    assert defaults is not None
    return arguments


def fsdp(folder, *, mixed_precision="no", **fsdp_config):
    config = {f"fsdp_{name}": value for name, value in fsdp_config.items()}
    arguments = parsed(
        folder, distributed_type="FSDP", fsdp_config=config, mixed_precision=mixed_precision
    )
    return prepare_multi_gpu_env(arguments)


def deepspeed(folder, **config):
    arguments = parsed(folder, distributed_type="DEEPSPEED", deepspeed_config=config)
    return prepare_deepspeed_cmd_env(arguments)[1]


def settings(folder, environment, **flags):
    return load_config(None, flags, folder, need_dataset=False, environment=environment)


def test_version_2_spreads_weights_by_our_own_setting(tmp_path):
    config = settings(tmp_path, fsdp(tmp_path, version=2, reshard_after_forward=False))
    assert (config.training.fsdp, config.training.fsdp_reshard_after_forward) == (True, False)
    assert config.origins["fsdp"] == "accelerate's config, fsdp_version"
    assert not config.notices
    config = settings(
        tmp_path,
        fsdp(tmp_path, version=2, reshard_after_forward=True, activation_checkpointing=True),
    )
    assert config.training.fsdp_reshard_after_forward
    assert config.training.gradient_checkpointing


def test_what_has_no_counterpart_is_said_by_name(tmp_path):
    asked = {
        "version": 2,
        "offload_params": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": "BasicTransformerBlock",
        "state_dict_type": "SHARDED_STATE_DICT",
        "cpu_ram_efficient_loading": True,
    }
    said = "\n".join(map(str, settings(tmp_path, fsdp(tmp_path, **asked)).notices))
    for name in ("offload_params (true)", "auto_wrap_policy", "state_dict_type"):
        assert f"fsdp_{name}" in said
    assert "fsdp_transformer_cls_to_wrap (BasicTransformerBlock) is not taken" in said


def test_command_line_and_files_win_over_it(tmp_path):
    environment = fsdp(tmp_path, version=2, mixed_precision="bf16")
    config = settings(tmp_path, environment)
    assert (config.training.fsdp, config.training.mixed_precision) == (True, "bf16")
    config = settings(tmp_path, environment, mixed_precision="no", fsdp=False)
    assert (config.training.fsdp, config.training.mixed_precision) == (False, "no")


def test_what_excludes_spread_weights_names_accelerates_file(tmp_path):
    with pytest.raises(ConfigError, match="fsdp would need a loss scale") as caught:
        settings(tmp_path, fsdp(tmp_path, version=2, mixed_precision="fp16"))
    assert "accelerate's config" in str(caught.value)


def test_version_1_is_refused_with_what_rewrites_it(tmp_path):
    with pytest.raises(ConfigError, match="FSDP of version 1 is asked for") as caught:
        settings(tmp_path, fsdp(tmp_path, version=1, sharding_strategy="FULL_SHARD"))
    assert "accelerate to-fsdp2" in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "instead"),
    [
        (0, "choose multi-GPU in `accelerate config`: stage 0 spreads nothing"),
        (2, "and add --fsdp --fsdp_reshard_after_forward false"),
        (3, "and add --fsdp"),
    ],
)
def test_deepspeed_is_refused_with_the_setting_that_does_the_same(tmp_path, stage, instead):
    environment = deepspeed(tmp_path, zero_stage=stage)
    with pytest.raises(ConfigError, match="DeepSpeed is asked for") as caught:
        settings(tmp_path, environment)
    assert str(caught.value).rstrip().endswith(instead)


def test_deepspeeds_own_file_is_refused_with_all_its_stages(tmp_path):
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(ConfigError, match="--fsdp for stage 3"):
        settings(tmp_path, deepspeed(tmp_path, deepspeed_config_file=str(tmp_path / "ds.json")))


def test_without_accelerate_nothing_is_set(tmp_path):
    config = settings(tmp_path, {})
    assert not config.training.fsdp
    assert config.origins["fsdp"] == "default"
