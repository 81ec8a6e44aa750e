"""What processes really send in a step is what the scaling formula says; counted by the kernel."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from sdft.planning.scaling import sent_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts with Linux' /proc")

SIZES = (1, 2, 4)
WIDTH = 500


def network():
    return torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(6)))


def written_bytes():
    """Return what this process has handed to the system to write, sockets included."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def step_in_a_group(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", rank=rank, world_size=max(SIZES))
    lines = []
    for size in SIZES:
        group = dist.new_group(list(range(size)))
        if rank < size:
            assert dist.get_world_size(group) == size
            model = DistributedDataParallel(network(), process_group=group)
            for _ in range(2):
                # The second step has the buckets in their final order.
                loss = model(torch.ones(1, WIDTH)).sum()
                before = written_bytes()
                loss.backward()
                sent = written_bytes() - before
            lines.append(f"{size} {sent}")
        dist.barrier()
    (Path(folder) / f"{rank}").write_text("\n".join(lines), "ascii")
    dist.destroy_process_group()


def test_gradients_of_1_2_and_4_processes_are_sent_as_the_formula_says(tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    spawn(step_in_a_group, args=(port, str(tmp_path)), nprocs=max(SIZES))
    gradient_bytes = 4 * sum(weight.numel() for weight in network().parameters())
    measured = {size: [] for size in SIZES}
    for rank in range(max(SIZES)):
        for line in (tmp_path / f"{rank}").read_text("ascii").splitlines():
            size, sent = map(int, line.split())
            measured[size].append(sent)
    assert [len(measured[size]) for size in SIZES] == [1, 2, 4]
    assert measured[1] == [0]
    for size in SIZES[1:]:
        expected = sent_bytes("ddp", weight_bytes=0, gradient_bytes=gradient_bytes, gpus=size)
        # Headers of messages, and parts that do not come out even.
        assert measured[size] == pytest.approx([expected] * size, rel=0.005)
