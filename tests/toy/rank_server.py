"""Runs one command line of `sdft` in several forked processes at once, with torch already loaded.

A program of its own: one JSON object a line comes in, one goes out. In: `argv`, `ranks` (how many),
`log` (each writes `<log>.<rank>`), and perhaps

    variables, argvs, cwds   one a rank
    kill                     which rank dies by SIGKILL, and when
    breaks                   which rank's losses become no numbers, and in which micro-batch
    ends_all                 where one fails, the others get SIGTERM, as from torchrun
    gradients                a file for the gradient that each update is made of
    parts                    files for what each process holds of the weights
    limit_s                  how long nothing may be written in the folder of `log`, nor one end
    shapes, encodings        files for what each process trains on, and encodes

Out: `codes` (negative: the signal; none where it had to be ended) and `ended_s`, when each process
ended, in seconds from any instant.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

# A sibling that is run by its path, too.
sys.path.insert(0, os.path.dirname(__file__))
from fork_server import CHANGES, load_everything

LIMIT_S = 150.0
"""Far less than the 30 minutes for which a run waits for a process that is silent."""
LOOK_EVERY_S = 1.0


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_backward(number: int) -> None:
    """Die between the forward and the backward pass of the n-th micro-batch."""
    from accelerate import Accelerator

    backward, count = Accelerator.backward, 0

    def counted(self: Any, *arguments: Any, **named: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            die()
        backward(self, *arguments, **named)

    Accelerator.backward = counted


def die_in_folder(part: str) -> None:
    """Die at the first file that is opened for writing below a folder of this name."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        else:
            path, writes = (arguments[0], True) if event in CHANGES else ("", False)
        if writes and part in str(path):
            die()

    sys.addaudithook(hook)


def die_at_gathering(number: int) -> None:
    """Die at the n-th tensor that is brought together for a file; the others wait for its rows."""
    from sdft.jobs.training import sharding

    whole, count = sharding.whole, 0

    def counted(tensor: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            die()
        return whole(tensor)

    sharding.whole = counted


def die_at_encoding(number: int) -> None:
    """Die when the n-th batch of pictures is encoded."""
    from sdft.cache.encoders import VaeEncoder

    submit, count = VaeEncoder.submit, 0

    def counted(self: Any, rgb_BHWC: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            die()
        return submit(self, rgb_BHWC)

    VaeEncoder.submit = counted


def terminated_at_backward(number: int) -> None:
    """Be asked to end before the n-th backward pass."""
    from accelerate import Accelerator

    backward, count = Accelerator.backward, 0

    def counted(self: Any, *arguments: Any, **named: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            signal.raise_signal(signal.SIGTERM)
        backward(self, *arguments, **named)

    Accelerator.backward = counted


def break_losses(number: int) -> None:
    """Make the losses of the n-th micro-batch no numbers."""
    from sdft.train.step import Objective

    losses, count = Objective.losses, 0

    def counted(self: Any, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        found = losses(self, *arguments)
        return found * float("nan") if count == number else found

    Objective.losses = counted


KILLS = {
    "terminated": terminated_at_backward,
    "backward": die_at_backward,
    "folder": die_in_folder,
    "encoding": die_at_encoding,
    "gathering": die_at_gathering,
}


def count_encodings(file: str) -> None:
    """Write down which pictures a process encodes, those that fill a batch up included."""
    from hashlib import blake2b

    from sdft.cache.encoders import VaeEncoder

    submit = VaeEncoder.submit

    def counted(self: Any, rgb_BHWC: Any) -> Any:
        with open(file, "a", encoding="ascii") as lines:
            lines.writelines(blake2b(one.tobytes()).hexdigest() + "\n" for one in rgb_BHWC)
        return submit(self, rgb_BHWC)

    VaeEncoder.submit = counted


def record_gradients(file: str, rank: int) -> None:
    """Keep the gradient that each update is made of, as one flat array a step.

    All processes come here: where weights are spread over them, each has a part.
    """
    import numpy as np

    from sdft.models.sharding import whole
    from sdft.train.step import Stepper

    apply, steps = Stepper._apply, []

    def recorded(self: Any, loss: Any) -> Any:
        weights = [one for module in self.synced_modules for one in module.parameters()]
        gradients = [one.grad for one in weights if one.grad is not None]
        steps.append(np.concatenate([whole(one).flatten().numpy().copy() for one in gradients]))
        if rank == 0:
            np.save(file, np.stack(steps))
        return apply(self, loss)

    Stepper._apply = recorded


def record_parts(file: str) -> None:
    """Write down what this process holds of the weights and their state, also while it saves."""
    import weakref

    import torch.distributed as dist
    from torch.distributed.tensor import DTensor

    from sdft.jobs.training import sharding
    from sdft.models.sharding import local_part
    from sdft.train.step import Stepper

    apply, whole, found, given = Stepper._apply, sharding.whole, {"most_whole": 0}, []

    def write() -> None:
        with open(file, "w", encoding="ascii") as record:
            json.dump(found, record)

    def counted(tensor: Any) -> Any:
        one = whole(tensor)
        given[:] = [held for held in given if held() is not None] + [weakref.ref(one)]
        if len(given) > found["most_whole"]:
            found["most_whole"] = len(given)
            write()
        return one

    sharding.whole = counted

    def recorded(self: Any, loss: Any) -> Any:
        answer = apply(self, loss)
        states = [
            value
            for values in self.optimizer.state.values()
            for value in values.values()
            if value is not None and value.dim() > 0
        ]
        weights = [one for module in self.synced_modules for one in module.parameters()]
        now = {
            "processes": dist.get_world_size() if dist.is_initialized() else 1,
            "spread": sum(isinstance(one, DTensor) for one in weights),
            "weights": len(weights),
            "own_values": sum(local_part(one).numel() for one in weights),
            "values": sum(one.numel() for one in weights),
            "state_values": sum(one.numel() for one in states),
            "networks": [type(one).__name__ for one in self.synced_modules],
        }
        found.update(now)
        write()
        return answer

    Stepper._apply = recorded


def record_shapes(file: str) -> None:
    """Write down the latents' shape of each micro-batch."""
    from sdft.train.step import Stepper

    update = Stepper.update

    def recorded(self: Any, batches: Any) -> Any:
        with open(file, "a", encoding="ascii") as lines:
            shapes = [list(batch.latents_BCHW.shape[2:]) for batch in batches]
            lines.write(json.dumps(shapes) + "\n")
        return update(self, batches)

    Stepper.update = recorded


def child(order: dict[str, Any], rank: int, port: int) -> int:
    log = os.open(f"{order['log']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.setsid()
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": order["ranks"], "MASTER_PORT": port}
    if order["ranks"] > 1:
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ.update((order.get("variables") or [{}] * order["ranks"])[rank])
    kill = order.get("kill") or {}
    if kill.get("rank") == rank:
        for name, function in KILLS.items():
            if name in kill:
                function(kill[name])
    breaks = order.get("breaks") or {}
    if breaks.get("rank") == rank:
        break_losses(breaks["backward"])
    if "gradients" in order:
        record_gradients(order["gradients"], rank)
    if "parts" in order:
        record_parts(f"{order['parts']}.{rank}")
    if "shapes" in order:
        record_shapes(f"{order['shapes']}.{rank}")
    if "encodings" in order:
        count_encodings(f"{order['encodings']}.{rank}")
    if "cwds" in order:
        os.chdir(order["cwds"][rank])
    from sdft.cli.app import run

    return run(order["argvs"][rank] if "argvs" in order else order["argv"])


def forked(order: dict[str, Any], rank: int, port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = child(order, rank, port)
    except BaseException:  # noqa: BLE001 - the edge of the child, which must not return
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def last_written_ns(folder: str) -> int:
    """Return when a file in the folder, or below it, was last written, made or taken away."""
    newest_ns = 0
    for path, _, names in os.walk(folder):
        for name in (".", *names):
            # It may be gone by now.
            with suppress(OSError):
                newest_ns = max(newest_ns, os.stat(os.path.join(path, name)).st_mtime_ns)
    return newest_ns


def serve(order: dict[str, Any]) -> dict[str, Any]:
    port = order.get("port") or free_port()
    running = {forked(order, rank, port): rank for rank in range(order["ranks"])}
    limit_s = order.get("limit_s", LIMIT_S)
    codes: list[int | None] = [None] * order["ranks"]
    ended_s: list[float | None] = [None] * order["ranks"]
    folder = os.path.dirname(order["log"])
    # A slow machine is no fault: what counts is how long nothing has happened.
    alive_s = looked_s = time.monotonic()
    before_ns = last_written_ns(folder)
    while running and time.monotonic() - alive_s < limit_s:
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                alive_s = ended_s[running[pid]] = time.monotonic()
                code = codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
                if code and order.get("ends_all"):
                    for other in running:
                        os.kill(other, signal.SIGTERM)
        if time.monotonic() - looked_s > LOOK_EVERY_S:
            now_ns, looked_s = last_written_ns(folder), time.monotonic()
            if now_ns != before_ns:
                before_ns, alive_s = now_ns, looked_s
        time.sleep(0.005)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"codes": codes, "ended_s": ended_s}


def main() -> None:
    load_everything()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
