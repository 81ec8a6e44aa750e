"""`sdft demo`: the whole way once, on a tiny model and pictures made for it.

In: an empty folder. Out: a model, images, settings, and what the commands of the way make of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.config.write import toml_value
from sdft.errors import UserError
from sdft.events import Emit, StageFinished, StageStarted
from sdft.files import write_text
from sdft.jobs.images import write_pictures

RunLine = Callable[[Sequence[str]], int]
"""Runs one command line, `sdft` being its first word; returns the exit code."""

NUM_IMAGES = 9
SIDE_PX = 192
SEED = 1

DATASET_TOML = """\
# Which images are trained on, in the format of sd-scripts.
[general]
enable_bucket = true
caption_extension = ".txt"

[[datasets]]
resolution = {side}
min_bucket_reso = 128
max_bucket_reso = 320
batch_size = 4

  [[datasets.subsets]]
  image_dir = 'images'
  num_repeats = 2
"""

CONFIG_TOML = """\
# How the model is trained. Every line is also an option: sdft train --help-all
pretrained_model_name_or_path = 'model.safetensors'
dataset_config = 'dataset.toml'
# Results go here. A relative path would start from the folder that the command is run in.
output_dir = {output}
output_name = 'demo'

# A tiny model with random weights learns fast; a real one wants about 2e-6.
learning_rate = 2e-3
lr_scheduler = "cosine"
max_train_epochs = 8
seed = 1
"""

NEXT = """\
With your own images
  1. Put them in a folder, a caption beside each: cat.png and cat.txt.
  2. Copy {dataset} and change image_dir, resolution to 512, max_bucket_reso to 1024,
     and take num_repeats out.
  3. Get a base model once, for instance Stable Diffusion 1.5 (v1-5-pruned-emaonly.safetensors,
     4.3 GB, licence CreativeML Open RAIL-M) from the model hubs' mirrors of it.
  4. Copy {config}, name that model, and use learning_rate = 2e-6.
  5. sdft train config.toml
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo left."""

    folder: Path
    checkpoint: Path | None
    """None where only the files were prepared."""
    picture: Path | None

    def as_json(self) -> dict[str, object]:
        return {
            "folder": str(self.folder),
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "picture": str(self.picture) if self.picture else None,
        }

    def words(self) -> str:
        """Return where everything is and what to do next."""
        lines = [
            "",
            f"model        {self.folder / 'model.safetensors'} (tiny, random weights)",
            f"images       {self.folder / 'images'}",
            f"settings     {self.folder / 'config.toml'}, {self.folder / 'dataset.toml'}",
        ]
        if self.checkpoint:
            lines += [
                f"checkpoint   {self.checkpoint}",
                f"run folder   {self.folder / 'output' / 'demo.run'}",
                f"a picture    {self.picture}",
            ]
        else:
            lines += [f"next         sdft train {self.folder / 'config.toml'}"]
        next_steps = NEXT.format(
            dataset=self.folder / "dataset.toml", config=self.folder / "config.toml"
        )
        return "\n".join([*lines, "", next_steps])


def run_demo(
    folder: Path, *, prepare_only: bool, device: str, run_line: RunLine, emit: Emit
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
    prepare_demo(folder, emit=emit)
    if prepare_only:
        return DemoResult(folder=folder, checkpoint=None, picture=None)
    config = str(folder / "config.toml")
    checkpoint = folder / "output" / "demo.safetensors"
    on_device = [] if device == "auto" else ["--device", device]
    drawing = ["--output-dir", str(folder / "samples"), "--seed", "1", "--steps", "20"]
    size = ["--width", str(SIDE_PX), "--height", str(SIDE_PX)]
    lines = [
        ["sdft", "bucket", config],
        ["sdft", "cache-latents", config, *on_device],
        ["sdft", "train", config, *on_device],
        ["sdft", "sample", str(checkpoint), "--prompt", "a big red circle", *drawing, *size],
    ]
    for line in lines:
        code = run_line(line + (on_device if line[1] == "sample" else []))
        if code != 0:
            raise UserError(
                what=f"`sdft {line[1]}` ended with {code}", where=str(folder), fix="see above"
            )
    pictures = sorted((folder / "samples").glob("*.png"))
    return DemoResult(folder=folder, checkpoint=checkpoint, picture=pictures[-1])


def prepare_demo(folder: Path, *, emit: Emit) -> None:
    """Write the images, the two settings files, and the tiny model in both forms."""
    # Heavy: brings torch and diffusers, some 10 s.
    from sdft.jobs.training.saving import save_as_single_file
    from sdft.models.bundle import load_bundle
    from sdft.models.toy import save_toy_model

    emit(StageStarted(stage="prepare", total=0, unit="file"))
    write_pictures(folder / "images", NUM_IMAGES, side_px=SIDE_PX, seed=SEED)
    write_text(folder / "dataset.toml", DATASET_TOML.format(side=SIDE_PX))
    output = toml_value(str(folder.absolute() / "output"))
    write_text(folder / "config.toml", CONFIG_TOML.format(output=output))
    save_toy_model(folder / "model", seed=SEED)
    save_as_single_file(load_bundle(folder / "model"), folder / "model.safetensors")
    emit(StageFinished(stage="prepare", done=NUM_IMAGES + 4, duration_s=0.0))
