"""`sdft launch-template`: what it writes is taken by bash, YAML, accelerate and torchrun."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from torch.distributed.run import get_args_parser

from sdft.errors import UserError
from sdft.jobs.launching import KINDS, Launch, launch_template

ODD = Launch(config="my runs/it's $HOME.toml", nodes=4, gpus=8, name="cats-2")


def torchrun_of(words):
    assert words[0] == "torchrun"
    return get_args_parser().parse_args(words[1:])


def test_the_slurm_script_starts_one_torchrun_a_machine(tmp_path):
    script = tmp_path / "train.sh"
    script.write_text(launch_template("slurm", ODD), "utf-8")
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text("utf-8")
    for line in ("--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--job-name=cats-2"):
        assert f"#SBATCH {line}\n" in text
    # Run with stand-ins for Slurm's programs: what does torchrun get?
    for name, body in {
        "scontrol": "printf 'node7\\nnode8\\n'",
        "srun": 'shift; printf "%s\\n" "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NUM_NODES": "4", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node[7-8]"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | slurm
    done = subprocess.run(
        ["bash", script], env=environment, capture_output=True, check=True, text=True
    )
    asked = torchrun_of(done.stdout.splitlines())
    assert (asked.nnodes, asked.nproc_per_node, asked.max_restarts) == ("4", "8", 3)
    assert (asked.rdzv_id, asked.rdzv_endpoint) == ("77", "node7:29500")
    assert [asked.module, asked.training_script] == [True, "sdft"]
    assert asked.training_script_args == ["train", ODD.config, "--resume", "auto"]


def test_the_kubernetes_file_is_a_service_and_an_indexed_job():
    service, job = yaml.safe_load_all(launch_template("k8s", ODD))
    assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    assert (spec["completions"], spec["parallelism"]) == (4, 4)
    pod = spec["template"]["spec"]
    # A pod's name in the service is job-index.subdomain.
    assert pod["subdomain"] == service["metadata"]["name"] == job["metadata"]["name"] == "cats-2"
    assert service["spec"]["selector"] == {"job-name": "cats-2"}
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    asked = torchrun_of(container["command"])
    assert asked.rdzv_endpoint == "cats-2-0.cats-2:29500"
    assert asked.training_script_args[1] == ODD.config
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 1), (1, 8), (4, 8)])
def test_accelerate_reads_its_file(tmp_path, nodes, gpus):
    file = tmp_path / "accelerate.yaml"
    file.write_text(launch_template("accelerate", Launch(config="c.toml", nodes=nodes, gpus=gpus)))
    config = load_config_from_file(str(file))
    assert (config.num_machines, config.num_processes) == (nodes, nodes * gpus)
    assert config.distributed_type.value == ("NO" if nodes * gpus == 1 else "MULTI_GPU")
    assert config.mixed_precision is None


def test_the_command_that_starts_accelerate_stands_in_the_file():
    first = launch_template("accelerate", ODD).splitlines()[0]
    words = shlex.split(first.removeprefix("# "))
    assert words[:2] == ["accelerate", "launch"]
    assert words[-4:] == ["train", ODD.config, "--resume", "auto"]


def test_the_command_prints_it_or_writes_it(sdft, tmp_path):
    text = launch_template("slurm", Launch(config="c.toml", nodes=2, gpus=4))
    line = ("launch-template", "slurm", "--config", "c.toml", "--nodes", "2", "--gpus", "4")
    assert sdft(*line).out == text
    file = tmp_path / "train.sh"
    assert sdft(*line, "-o", file).out.strip() == str(file)
    assert file.read_text("utf-8") == text
    assert json.loads(sdft(*line, "--json").out) == {"kind": "slurm", "text": text}


@pytest.mark.parametrize(
    ("kind", "launch", "said"),
    [
        ("slrum", Launch(config="c"), "slurm"),
        ("slurm", Launch(config="c", nodes=0), "--nodes"),
        ("k8s", Launch(config="c", gpus=0), "--gpus"),
        ("slurm", Launch(config="c\nrm -r x"), "printable"),
        ("k8s", Launch(config="c", name="My Job"), "small letters"),
        ("slurm", Launch(config="c", time_limit="1\n#SBATCH"), "no time limit"),
    ],
)
def test_what_cannot_be_is_refused(kind, launch, said):
    with pytest.raises(UserError, match=said):
        launch_template(kind, launch)


def test_every_kind_ends_in_a_line_end():
    assert {launch_template(kind, ODD)[-1] for kind in KINDS} == {"\n"}
