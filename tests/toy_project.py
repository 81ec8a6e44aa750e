"""A project to train with random weights: what most tests start from, learnt or not."""

from __future__ import annotations

from pathlib import Path

from sdft.config.write import toml_value
from sdft.files import write_text
from tests.toy_pictures import write_pictures

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


def prepare_toy(folder: Path) -> None:
    """Write images in several shapes, the two settings files, and the toy model in both forms."""
    from tests.toy_model import save_toy_model

    write_pictures(folder / "images", NUM_IMAGES, side_px=SIDE_PX, seed=SEED)
    write_text(folder / "dataset.toml", DATASET_TOML.format(side=SIDE_PX))
    output = toml_value(str(folder.absolute() / "output"))
    write_text(folder / "config.toml", CONFIG_TOML.format(output=output))
    save_toy_model(folder / "model", seed=SEED)
    save_as_single_file(folder / "model", folder / "model.safetensors")


def save_as_single_file(model: Path, file: Path) -> None:
    """Write a model folder in the original layout, as it is."""
    from sdft.jobs.training.saving import write_model
    from sdft.models.bundle import load_bundle
    from sdft.models.text import text_state_dict

    bundle = load_bundle(model)
    write_model(
        file,
        bundle=bundle,
        unet=bundle.unet.state_dict(),
        text_encoder=text_state_dict(bundle.text_encoder),
        form="safetensors",
        save_precision=None,
        metadata=bundle.metadata,
    )
