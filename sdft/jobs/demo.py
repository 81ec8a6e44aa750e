"""`sdft demo`: the whole way once, on the tiny model that comes along and pictures made for it.

In: an empty folder. Out: settings, images of something that the model has never seen, what the
commands of the way make of them, and how well the model draws it before and after.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.config.write import toml_value
from sdft.errors import EnvironmentFault, UserError
from sdft.events import Emit, StageFinished, StageStarted
from sdft.files import whole_file, write_text
from sdft.jobs.concept import (
    GUIDANCE,
    STEPS,
    WORD,
    Score,
    score,
    write_concept,
)
from sdft.models.tiny.scenes import SIDE_PX
from sdft.models.tiny.shipped import TINY_MODEL
from sdft.rundir import RunDir

RunLine = Callable[[Sequence[str]], int]
"""Runs one command line, `sdft` being its first word; returns the exit code."""

NAME = "demo"
NUM_SCORED = 48
SCORE_SEED = 1000

PROMPTS = (
    f"a red {WORD}",
    f"a blue {WORD}",
    f"a yellow {WORD} on a black background",
    f"a green {WORD}",
    "a red circle",
    "a blue square",
    "a green triangle",
    "a yellow circle",
)

DATASET_TOML = """\
# Which images are trained on, in the format of sd-scripts.
[general]
enable_bucket = true
caption_extension = ".txt"

[[datasets]]
resolution = {side}
min_bucket_reso = {side}
max_bucket_reso = {side}
batch_size = 16

  # Something new: a shape that the model has never seen, with its word in the captions.
  [[datasets.subsets]]
  image_dir = 'images'
  num_repeats = 4

  # What it knows already, so that it does not forget.
  [[datasets.subsets]]
  image_dir = 'regularisation'
  is_reg = true
"""

CONFIG_TOML = """\
# How the model is trained. Every line is also an option: sdft train --help-all
pretrained_model_name_or_path = 'model.safetensors'
dataset_config = 'dataset.toml'
# Results go here. A relative path would start from the folder that the command is run in.
output_dir = {output}
output_name = '{name}'

# A tiny model learns fast; a real one wants about 2e-6, and may leave the text encoder as it is.
learning_rate = {rate}
train_text_encoder = true
learning_rate_te = {rate_te}
# Shapes are settled where there is much noise, so that is what counts most.
min_snr_gamma = 5
lr_scheduler = "cosine"
lr_warmup_steps = 10
max_train_epochs = {epochs}
seed = {seed}

# Images that are never trained on show whether the word is learnt or the images are.
validation_dir = 'validation'
validate_every_n_epochs = {quarter}

# The same pictures before and after.
sample_prompts = 'prompts.txt'
sample_at_first = true
sample_every_n_epochs = {epochs}
"""

RATE = "2e-3"
RATE_TE = "3e-3"
EPOCHS = 20

NEXT = """\
With your own images
  1. Put them in a folder, a caption beside each: cat.png and cat.txt.
  2. Copy {dataset}: change image_dir, resolution to 512, min_bucket_reso to 256 and
     max_bucket_reso to 1024, and take num_repeats and the second subset out.
  3. Get a base model once, for instance Stable Diffusion 1.5 (v1-5-pruned-emaonly.safetensors,
     4.3 GB, licence CreativeML Open RAIL-M) from the model hubs' mirrors of it.
  4. Copy {config}: name that model, use learning_rate = 2e-6, take train_text_encoder and
     learning_rate_te out and write prompts of your own.
  5. sdft train config.toml
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo left."""

    folder: Path
    run: RunDir | None = None
    """None where only the files were prepared."""
    before: Score | None = None
    after: Score | None = None

    @property
    def checkpoint(self) -> Path | None:
        return self.run.path.with_suffix(".safetensors") if self.run else None

    @property
    def sheet(self) -> Path | None:
        """The pictures of PROMPTS, first and last."""
        return self.run.samples / "sheet.png" if self.run else None

    def as_json(self) -> dict[str, object]:
        return {
            "folder": str(self.folder),
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "run": str(self.run.path) if self.run else None,
            "sheet": str(self.sheet) if self.sheet else None,
            "before": self.before.as_json() if self.before else None,
            "after": self.after.as_json() if self.after else None,
        }

    def next_steps(self) -> str:
        """Return how to go on with images of one's own."""
        return NEXT.format(dataset=self.folder / "dataset.toml", config=self.folder / "config.toml")


def run_demo(
    folder: Path,
    *,
    prepare_only: bool = False,
    device: str = "auto",
    seed: int = 1,
    run_line: RunLine,
    emit: Emit,
) -> DemoResult:
    """Prepare the files and, unless only that is asked, run the commands of the way.

    Raises: UserError where the folder holds something; SdftError where a command fails.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            what="this folder is not empty",
            where=str(folder),
            fix="name another: sdft demo FOLDER",
        )
    prepare_demo(folder, seed=seed, emit=emit)
    if prepare_only:
        return DemoResult(folder=folder)
    model = folder / "model.safetensors"
    before = score_model(model, stage="score before", device=device, emit=emit)
    config = str(folder / "config.toml")
    on_device = [] if device == "auto" else ["--device", device]
    for words in (
        ["sdft", "bucket", config],
        ["sdft", "cache-latents", config, *on_device],
        ["sdft", "train", config, *on_device],
    ):
        code = run_line(words)
        if code != 0:
            raise UserError(
                what=f"`sdft {words[1]}` ended with {code}", where=str(folder), fix="see above"
            )
    run = RunDir(folder / "output" / f"{NAME}.run")
    result = DemoResult(folder=folder, run=run, before=before)
    assert result.checkpoint is not None
    after = score_model(result.checkpoint, stage="score after", device=device, emit=emit)
    return DemoResult(folder=folder, run=run, before=before, after=after)


def prepare_demo(folder: Path, *, seed: int = 1, emit: Emit) -> None:
    """Write the images, the settings files and the tiny model.

    Raises: EnvironmentFault where the package came without the model.
    """
    if not TINY_MODEL.is_file():
        raise EnvironmentFault(
            what="the package's tiny model is missing",
            where=str(TINY_MODEL),
            fix="install sdft again",
        )
    emit(StageStarted(stage="prepare", total=0, unit="file"))
    num_images = write_concept(folder, seed=seed)
    write_text(folder / "dataset.toml", DATASET_TOML.format(side=SIDE_PX))
    flags = f"--w {SIDE_PX} --h {SIDE_PX} --s {STEPS} --l {GUIDANCE:g}"
    lines = [f"{prompt} {flags} --d {number}" for number, prompt in enumerate(PROMPTS)]
    write_text(folder / "prompts.txt", "\n".join([*lines, ""]))
    config = CONFIG_TOML.format(
        output=toml_value(str(folder.absolute() / "output")),
        name=NAME,
        rate=RATE,
        rate_te=RATE_TE,
        epochs=EPOCHS,
        quarter=max(1, EPOCHS // 4),
        seed=seed,
    )
    write_text(folder / "config.toml", config)
    with whole_file(folder / "model.safetensors") as part:
        shutil.copyfile(TINY_MODEL, part)
    emit(StageFinished(stage="prepare", done=2 * num_images + 4, duration_s=0.0))


def score_model(
    model: Path,
    *,
    stage: str,
    device: str,
    hypernetworks: Sequence[tuple[Path, float]] = (),
    emit: Emit,
) -> Score:
    """Draw pictures of the new shape and of known ones with a model, and look at them.

    `hypernetworks` are files and their strengths, as for `sdft sample`.
    """
    # Heavy: brings torch, diffusers and transformers, some 10 s.
    from sdft.jobs.hypernetworks import use_hypernetworks
    from sdft.jobs.training.drawing import Drawer
    from sdft.jobs.training.machine import build_accelerator
    from sdft.models.bundle import load_bundle

    started_s = time.monotonic()
    emit(StageStarted(stage=stage, total=0, unit="picture"))
    accelerator = build_accelerator(
        device=device, mixed_precision="no", deterministic=False, emit=emit
    )
    bundle = load_bundle(model, device=accelerator.device)
    use_hypernetworks(bundle, hypernetworks, emit=emit)
    drawer = Drawer.of_bundle(
        bundle, clip_skip=None, max_token_length=75, device=accelerator.device
    )
    found = score(drawer, num_pictures=NUM_SCORED, seed=SCORE_SEED)
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=stage, done=2 * NUM_SCORED, duration_s=duration_s))
    return found
