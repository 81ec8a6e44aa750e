"""What the other scripts of sd-scripts are here: the rows of the README's table, run by a test.

The words in capitals are what a person puts in.
"""

from __future__ import annotations

SCRIPTS = {
    "finetune/make_captions.py": (
        "make_captions.py IMAGES --beam_search --num_beams 2 --max_length 20",
        "sdft caption IMAGES --model BLIP --beam_search --num_beams 2 --max_length 20",
    ),
    "finetune/make_captions_by_git.py": (
        "make_captions_by_git.py IMAGES --model_id GIT --remove_words --max_length 20",
        "sdft caption IMAGES --model_id GIT --remove_words --max_length 20 --overwrite",
    ),
    "finetune/tag_images_by_wd14_tagger.py": (
        "tag_images_by_wd14_tagger.py IMAGES --onnx --repo_id TAGGER --thresh 0.1"
        " --remove_underscore",
        "sdft tag IMAGES --onnx --repo_id TAGGER --thresh 0.1 --remove_underscore",
    ),
    "finetune/merge_captions_to_metadata.py": (
        "merge_captions_to_metadata.py IMAGES META.json",
        "sdft metadata merge IMAGES --out META.json",
    ),
    "finetune/merge_dd_tags_to_metadata.py": (
        "merge_dd_tags_to_metadata.py IMAGES META.json --in_json META.json",
        "sdft metadata merge IMAGES --out META.json --in_json META.json",
    ),
    "finetune/clean_captions_and_tags.py": (
        "clean_captions_and_tags.py META.json CLEAN.json",
        "sdft metadata clean META.json CLEAN.json",
    ),
    "finetune/prepare_buckets_latents.py": (
        "prepare_buckets_latents.py IMAGES CLEAN.json LATENTS.json MODEL"
        " --max_resolution 128,128 --min_bucket_reso 64 --flip_aug",
        "sdft cache-latents --train_data_dir IMAGES --in_json CLEAN.json"
        " --pretrained_model_name_or_path MODEL --resolution 128,128 --enable_bucket"
        " --min_bucket_reso 64 --flip_aug",
    ),
    "tools/cache_latents.py": (
        "cache_latents.py --pretrained_model_name_or_path MODEL --dataset_config DATASET.toml"
        " --cache_latents_to_disk --vae_batch_size 2 --no_half_vae",
        "sdft cache-latents --pretrained_model_name_or_path MODEL --dataset_config DATASET.toml"
        " --cache_latents_to_disk --vae_batch_size 2 --no_half_vae",
    ),
    "tools/convert_diffusers20_original_sd.py": (
        "convert_diffusers20_original_sd.py MODEL OUT.safetensors --fp16",
        "sdft convert MODEL OUT.safetensors --save_precision_as fp16",
    ),
}
"""Script to (its line, the line here)."""


def rows() -> list[tuple[str, str]]:
    """Return the rows of the README's table."""
    return [(f"`{old}`", f"`{new}`") for old, new in SCRIPTS.values()]
