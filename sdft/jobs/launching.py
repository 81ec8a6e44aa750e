"""Files that start one training on several machines: Slurm, Kubernetes, accelerate.

In: how many machines and GPUs, and the file of settings. Out: the text of a file that is ready to
be handed in. Each starts one process a GPU, goes on from the last state after an end, and has the
first machine as the meeting point.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from sdft.errors import UserError, nearest

MEETING_PORT = 29500
"""torchrun's own default."""

CORES_PER_GPU = 8
"""Enough to decode for one GPU; Slurm gives one core where nothing is said."""

SECONDS_TO_SAVE = 120
"""Before a time limit, in which the step ends and the state is written."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?")
"""What Kubernetes takes as a name; Slurm takes it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is to be started."""

    config: str
    """The file of settings, as the machines see it."""
    nodes: int = 1
    gpus: int = 1
    """On each machine."""
    max_restarts: int = 3
    name: str = "sdft"
    image: str = "sdft:latest"
    """Of the container; Kubernetes only."""
    claim: str = "sdft"
    """The persistent volume claim with settings, images and results; Kubernetes only."""
    time_limit: str = "24:00:00"
    """Slurm only."""


def launch_template(kind: str, launch: Launch) -> str:
    """Return the file for a kind of starter.

    Raises: UserError for an unknown kind, counts below 1, or a name that Kubernetes does not take.
    """
    if kind not in KINDS:
        raise UserError(
            what=f'no template "{kind}"',
            where="KIND",
            fix=nearest(kind, list(KINDS)) or ", ".join(KINDS),
        )
    for name, count, least in (
        ("--nodes", launch.nodes, 1),
        ("--gpus", launch.gpus, 1),
        ("--max_restarts", launch.max_restarts, 0),
    ):
        if count < least:
            raise UserError(what=f"{count} is too few", where=name, fix=f"give {least} or more")
    if not launch.config.isprintable() or not launch.config:
        raise UserError(what="a path of printable letters is wanted", where="--config")
    if not _NAME.fullmatch(launch.name):
        raise UserError(
            what=f'"{launch.name}" is no name of a job',
            where="--name",
            fix="small letters, digits and -, at most 52, a letter first",
        )
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", launch.time_limit):
        raise UserError(
            what=f'"{launch.time_limit}" is no time limit',
            where="--time",
            fix="write it like 24:00:00 or 2-12:00:00",
        )
    return KINDS[kind](launch)


def _torchrun(launch: Launch, *, nodes: str, run_id: str, host: str) -> list[str]:
    """Return the words that start a machine's share; the variables in them are not quoted."""
    return [
        "torchrun",
        f"--nnodes={nodes}",
        f"--nproc-per-node={launch.gpus}",
        f"--max-restarts={launch.max_restarts}",
        f"--rdzv-id={run_id}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={host}:{MEETING_PORT}",
        "-m",
        "sdft",
        "train",
        launch.config,
        "--resume",
        "auto",
    ]


def _slurm(launch: Launch) -> str:
    words = _torchrun(launch, nodes="$SLURM_JOB_NUM_NODES", run_id="$SLURM_JOB_ID", host="$head")
    line = " ".join(f'"{word}"' if "$" in word else shlex.quote(word) for word in words[:10])
    line += " " + " ".join(shlex.quote(word) for word in words[10:])
    return f"""#!/bin/bash
# sbatch this file. All machines must see the folder it is started in, the images and the cache.
#SBATCH --job-name={launch.name}
#SBATCH --nodes={launch.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={launch.gpus}
#SBATCH --cpus-per-task={CORES_PER_GPU * launch.gpus}
#SBATCH --time={launch.time_limit}
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# Before the time is up, and when the job is moved: the state is written, the next start goes on.
#SBATCH --signal=TERM@{SECONDS_TO_SAVE}
#SBATCH --requeue
set -euo pipefail

head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export OMP_NUM_THREADS={CORES_PER_GPU}

srun --kill-on-bad-exit=1 {line}
"""


def _k8s(launch: Launch) -> str:
    name = launch.name
    words = _torchrun(launch, nodes=str(launch.nodes), run_id=name, host=f"{name}-0.{name}")
    # JSON's texts and lists are YAML's.
    command = json.dumps(words)
    return f"""# kubectl apply -f this file. The claim holds settings, images and results.
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  clusterIP: None
  # The machines look for each other before any of them is ready.
  publishNotReadyAddresses: true
  selector:
    job-name: {name}
  ports:
    - port: {MEETING_PORT}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
spec:
  completionMode: Indexed
  completions: {launch.nodes}
  parallelism: {launch.nodes}
  backoffLimit: {launch.max_restarts * launch.nodes}
  template:
    spec:
      subdomain: {name}
      restartPolicy: OnFailure
      terminationGracePeriodSeconds: {SECONDS_TO_SAVE}
      containers:
        - name: train
          image: {json.dumps(launch.image)}
          workingDir: /work
          command: {command}
          resources:
            limits:
              nvidia.com/gpu: {launch.gpus}
          volumeMounts:
            - name: work
              mountPath: /work
            - name: shared-memory
              mountPath: /dev/shm
      volumes:
        - name: work
          persistentVolumeClaim:
            claimName: {json.dumps(launch.claim)}
        # Processes hand each other pictures through it; a container's own has 64 MB.
        - name: shared-memory
          emptyDir:
            medium: Memory
"""


def _accelerate(launch: Launch) -> str:
    total = launch.nodes * launch.gpus
    config = shlex.quote(launch.config)
    return f"""# accelerate launch --config_file THIS_FILE -m sdft train {config} --resume auto
# On further machines: --machine_rank 1, 2, ... and the first machine's name for `localhost`.
# Precision is left to the file of settings.
compute_environment: LOCAL_MACHINE
distributed_type: {"MULTI_GPU" if total > 1 else "'NO'"}
num_machines: {launch.nodes}
num_processes: {total}
machine_rank: 0
main_process_ip: localhost
main_process_port: {MEETING_PORT}
main_training_function: main
rdzv_backend: static
same_network: true
use_cpu: false
"""


KINDS: dict[str, Callable[[Launch], str]] = {
    "slurm": _slurm,
    "k8s": _k8s,
    "accelerate": _accelerate,
}
