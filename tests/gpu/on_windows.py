"""Takes the figures of one Windows machine with an NVIDIA card, for the table in the README.

    python tests\\gpu\\on_windows.py              in the environment in which sdft is installed
    python tests\\gpu\\on_windows.py --rows demo,resume --out my-figures

Takes about half an hour and 20 GB of disk. Every row is a command that a person could type; what
cannot be run is written down as such, with the reason. Ends with the table's column, ready to be
copied, in OUT/figures.md; nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import json
import mmap
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 3600.0
LOW_MEMORY = "--mixed_precision bf16 --full_bf16 --optimizer_type AdamW8bit --fused_backward_pass"
LOW_MEMORY += " --gradient_checkpointing"
USUAL = "--mixed_precision fp16 --optimizer_type AdamW8bit --gradient_checkpointing"


class NotRun(Exception):
    """A row that this machine cannot fill, with the reason."""


@dataclass(frozen=True)
class Trial:
    folder: Path
    quick: bool

    def sdft(self, *words: str | Path, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run a command with --json and return what it says.

        Raises: NotRun where it ends with another code.
        """
        done = subprocess.run(
            [sys.executable, "-m", "sdft", *map(str, words), "--json"],
            cwd=self.folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
        if done.returncode not in codes:
            last = (done.stderr.strip() or "nothing was said").splitlines()[-1]
            raise NotRun(f"sdft {words[0]} ended with {done.returncode}: {last[:200]}")
        return json.loads(done.stdout) | {"exit_code": done.returncode}

    def bench(self, family: str, resolution: int, settings: str) -> str:
        if self.quick:
            family, resolution = "toy", 64
        line = f"bench step --family {family} --resolution {resolution} --batch_size 1 {settings}"
        rows = self.sdft(*line.split())["rows"]
        rates = [f"{row['value']:.3g} {row['unit']}" for row in rows if row["unit"] == "images/s"]
        peaks = [f"{row['value'] / 1e9:.3g} GB" for row in rows if row["unit"] == "bytes"]
        if not rates:
            raise NotRun("sdft bench gave no rate")
        return ", ".join([*rates[:1], *(f"{peak} at most" for peak in peaks)])


def machine(trial: Trial) -> str:
    result = trial.sdft("doctor")
    found = {one["name"]: one for one in result["findings"]}
    names = ("system", "python", "torch", "NVIDIA driver", "GPU")
    told = ", ".join(f"{found[name]['value']}" for name in names if name in found)
    return f"{told}; {len(result['problems'])} problems"


def demo(trial: Trial) -> str:
    started_s = time.monotonic()
    trial.sdft("demo", "demo")
    return f"{time.monotonic() - started_s:.0f} s"


def _config(trial: Trial) -> Path:
    """Return the demo's config; the demo is made first where it is not there."""
    config = trial.folder / "demo" / "config.toml"
    if not config.exists():
        trial.sdft("demo", "demo", "--prepare")
    return config


def resume(trial: Trial) -> str:
    more = ("--steps", "12", "--kills", "3", "--deterministic")
    result = trial.sdft("prove-resume", _config(trial), *more, codes=(0, 4))
    return "the same bits" if result["exit_code"] == 0 else "differs"


def closing(trial: Trial) -> str:
    """Press Ctrl-Break in the middle of a training, as closing its window does, and look."""
    config = _config(trial)
    out = trial.folder / "closed"
    line = [sys.executable, "-m", "sdft", "train", str(config), "--output_dir", str(out)]
    line += ["--output_name", "closed", "--max_train_steps", "100000", "--allow_sleep"]
    if sys.platform == "win32":
        flags, number = subprocess.CREATE_NEW_PROCESS_GROUP, signal.CTRL_BREAK_EVENT
    else:
        flags, number = 0, signal.SIGTERM
    process = subprocess.Popen(line, cwd=trial.folder, creationflags=flags)
    events = out / "closed.run" / "events.jsonl"
    deadline_s = time.monotonic() + 600
    while not (events.exists() and "StepDone" in events.read_text(encoding="ascii")):
        if process.poll() is not None or time.monotonic() > deadline_s:
            process.kill()
            raise NotRun("the training did not come to its first step")
        time.sleep(0.2)
    asked_s = time.monotonic()
    process.send_signal(number)
    code = process.wait(timeout=120)
    states = list((out / "closed.run" / "states").glob("step*"))
    took_s = time.monotonic() - asked_s
    return f"exit code {code}, {len(states)} state after {took_s:.1f} s"


def mapped(trial: Trial) -> str:
    """Write over a checkpoint that another program has mapped."""
    if sys.platform != "win32":
        raise NotRun("only Windows keeps mapped files from being replaced")
    model = _config(trial).parent / "model.safetensors"
    target = trial.folder / "mapped.safetensors"
    trial.sdft("convert", model, target, "--overwrite")
    before = target.stat().st_size
    with target.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        smaller = ("--overwrite", "--save_precision", "fp16")
        result = trial.sdft("convert", model, target, *smaller, codes=(3,))
        kept = list(trial.folder.glob("mapped.new-*.safetensors"))
        same = target.stat().st_size == before
    named = str(target) in json.dumps(result["problems"]).replace("\\\\", "\\")
    return f"left alone: {same}, named: {named}, new one kept: {len(kept) == 1}"


ROWS: dict[str, tuple[str, Callable[[Trial], str]]] = {
    "machine": ("the machine", machine),
    "demo": ("`sdft demo`", demo),
    "resume": ("`sdft prove-resume`, 3 kills", resume),
    "closing": ("the window is closed while training (Ctrl-Break)", closing),
    "mapped": ("`sdft convert` over a mapped checkpoint", mapped),
    "sd15": (
        "SD 1.5, 512 px, batch 1, AdamW8bit, fp16",
        lambda trial: trial.bench("sd1", 512, USUAL),
    ),
    "sd15-6gb": (
        "SD 1.5, 512 px, batch 1, the settings of `sd15-6gb`",
        lambda trial: trial.bench("sd1", 512, LOW_MEMORY),
    ),
    "sd2-8gb": (
        "SD 2.1-v, 768 px, batch 1, the same settings",
        lambda trial: trial.bench("sd2-v", 768, LOW_MEMORY),
    ),
    "compiled": (
        "SD 1.5, 512 px, batch 1, `torch_compile` (triton-windows)",
        lambda trial: trial.bench("sd1", 512, "--mixed_precision bf16 --torch_compile"),
    ),
}


def fill(trial: Trial, names: list[str]) -> dict[str, str]:
    """Return the column: a figure a row, or why there is none."""
    column = {}
    for name, (title, row) in ROWS.items():
        if name not in names:
            column[name] = "not run"
            continue
        print(f"{title} ...", flush=True)
        try:
            column[name] = row(trial)
        except (NotRun, OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            column[name] = f"not run: {error}"
        print(f"  {column[name]}", flush=True)
    return column


def table(column: dict[str, str]) -> str:
    rows = [f"| {ROWS[name][0]} | {figure} |" for name, figure in column.items()]
    return "\n".join(["| what | here |", "| --- | --- |", *rows]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("windows-figures"))
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="a toy in place of the models")
    given = parser.parse_args()
    names = given.rows.split(",")
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; known: {', '.join(ROWS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    column = fill(Trial(given.out.absolute(), given.quick), names)
    text = table(column)
    (given.out / "figures.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten: {given.out / 'figures.md'}")
    return int(any(figure.startswith("not run:") for figure in column.values()))


if __name__ == "__main__":
    sys.exit(main())
