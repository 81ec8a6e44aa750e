"""Prints the whole training loop beside the bare loop: U-Net, loss, backward, clipping, optimizer.

Both sides have the same networks and optimizer and take turns in this process. The loop reads
latents and contexts from a cache on the disk, draws noise, reads captions, counts, and writes its
events into a file, as a run does. Ends with 1 where the loop is slower than allowed.

python tests/bench/bench_loop.py            the toy, within 10 %
python tests/bench/bench_loop.py --full     the sizes of SD 1.5, within 3 %; takes 14 GB of memory
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from sdft.events import ignore
from sdft.jobs.benching.made_run import made_run
from sdft.jobs.benching.random_model import random_model
from sdft.jobs.benching.rig import build_rig, settings_of
from sdft.jobs.benching.stages import alternate
from sdft.rundir import RunDir
from sdft.views.fanout import Fanout
from sdft.views.record import RunRecorder

ALLOWED_TOY, ALLOWED_FULL = 1.10, 1.03


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--px", type=int, default=128)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    batch_size = asked.batch or (1 if asked.full else 4)
    settings = settings_of({"device": "cpu", "optimizer_type": "AdamW", "max_grad_norm": 1.0})
    bundle = random_model(
        "sd1", device=torch.device("cpu"), parts=("unet", "text_encoder"), toy=not asked.full
    )
    rig = build_rig(bundle, settings, emit=ignore)
    recorder = RunRecorder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recorder.open(RunDir.of(folder, "run"))
        run = made_run(
            rig, folder, side_px=asked.px, batch_size=batch_size, emit=Fanout([recorder])
        )
        bare = run.bare_loop()
        assert bare is not None
        loop_s, bare_s = alternate(run, bare.step, rounds=asked.rounds)
        num_events = (folder / "run.run" / "events.jsonl").read_text("ascii").count("StepDone")
        recorder.close()
    assert bare_s is not None
    assert num_events == run.meter.step, "each step has its event"
    allowed = ALLOWED_FULL if asked.full else ALLOWED_TOY
    size = "SD 1.5" if asked.full else "toy"
    print(f"{size}, {asked.px} px, batch {batch_size}, {torch.get_num_threads()} threads")
    print(f"bare loop      {bare_s * 1000:10.1f} ms a step")
    print(f"training loop  {loop_s * 1000:10.1f} ms a step, {loop_s / bare_s:.3f} of the bare loop")
    print(f"allowed        {allowed:.2f}")
    return int(loop_s / bare_s > allowed)


if __name__ == "__main__":
    sys.exit(main())
