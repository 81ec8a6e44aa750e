"""Reading files and flags: what wins, where paths lead, how datasets inherit."""

import json

import pytest

from sdft.config.load import load_config
from sdft.errors import ConfigError


@pytest.fixture
def project(tmp_path):
    for name in ("imgs", "more", "reg"):
        (tmp_path / name).mkdir()
    (tmp_path / "meta.json").write_text("{}")
    return tmp_path


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


SIMPLE = "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'imgs'\n"


def test_a_subset_key_comes_from_subset_then_dataset_then_general_then_flag(project):
    path = write(
        project,
        "d.toml",
        """
[general]
keep_tokens = 1
flip_aug = true
[[datasets]]
resolution = 512
keep_tokens = 2
[[datasets.subsets]]
image_dir = "imgs"
keep_tokens = 3
[[datasets.subsets]]
image_dir = "more"
[[datasets]]
resolution = [512, 768]
[[datasets.subsets]]
image_dir = "imgs"
flip_aug = false
""",
    )
    flags = {"keep_tokens": "9", "caption_prefix": "a photo", "train_batch_size": 4}
    config = load_config(path, flags, project)
    first, second = config.datasets
    assert [subset.keep_tokens for subset in first.subsets] == [3, 2]
    assert [subset.keep_tokens for subset in second.subsets] == [1]
    assert [subset.flip_aug for subset in first.subsets] == [True, True]
    assert not second.subsets[0].flip_aug
    assert second.subsets[0].caption_prefix == "a photo"
    assert (first.batch_size, second.resolution) == (4, (512, 768))
    assert config.origins["datasets.0.subsets.0.keep_tokens"] == "d.toml:10"
    assert config.origins["datasets.1.subsets.0.keep_tokens"] == "d.toml:3"
    assert config.origins["datasets.0.batch_size"] == "--train_batch_size"
    assert config.origins["datasets.0.subsets.0.color_aug"] == "default"


def test_an_overruled_dataset_flag_is_reported_with_file_and_line(project):
    path = write(project, "d.toml", SIMPLE)
    config = load_config(path, {"resolution": "768"}, project)
    assert config.datasets[0].resolution == (512, 512)
    (notice,) = config.notices
    assert notice.where == "d.toml:2"
    assert "--resolution is overruled" in notice.what


def test_a_dataset_flag_equal_to_the_file_makes_no_notice(project):
    path = write(project, "d.toml", SIMPLE)
    assert load_config(path, {"resolution": "512,512"}, project).notices == ()


def test_a_training_flag_wins_over_the_file(project):
    path = write(project, "c.toml", "learning_rate = 1e-5\nmax_train_steps = 5\n" + SIMPLE)
    config = load_config(path, {"learning_rate": "3e-6", "seed": None}, project)
    assert config.training.learning_rate == 3e-6
    assert config.training.max_train_steps == 5
    assert config.origins["learning_rate"] == "--learning_rate"
    assert config.origins["max_train_steps"] == "c.toml:2"
    assert config.training.seed is None


def test_sections_of_a_training_file_are_flattened(project):
    text = "[basic]\nlearning_rate = 1\n[general]\nenable_bucket = true\nseed = 3\n"
    path = write(project, "c.toml", "dataset_config = 'd.toml'\n" + text)
    write(project, "d.toml", SIMPLE)
    config = load_config(path, {}, project)
    assert (config.training.learning_rate, config.training.seed) == (1.0, 3)
    assert config.datasets[0].enable_bucket
    assert config.origins["datasets.0.enable_bucket"] == "c.toml:5"


def test_config_file_is_another_name_for_config_and_may_lack_its_ending(project):
    write(project, "c.toml", "seed = 7\n" + SIMPLE)
    assert load_config(None, {"config_file": "c"}, project).training.seed == 7


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("512", (512, 512)),
        ("[512, 768]", (512, 768)),
        ('"512,768"', (512, 768)),
        ("[640]", (640, 640)),
    ],
)
def test_resolution_is_a_side_or_two_as_list_or_text(project, written, size):
    path = write(project, "d.toml", SIMPLE.replace("512", written))
    assert load_config(path, {}, project).datasets[0].resolution == size


def test_whole_numbers_do_where_fractions_are_meant(project):
    extra = "face_crop_aug_range = [1, 3]\ncaption_dropout_rate = 1\n"
    path = write(project, "d.toml", SIMPLE + extra)
    (subset,) = load_config(path, {}, project).datasets[0].subsets
    assert subset.face_crop_aug_range == (1.0, 3.0)
    assert subset.caption_dropout_rate == 1.0


def test_json_datasets_are_read_and_null_counts_as_not_given(project):
    values = {
        "general": {"keep_tokens": 2},
        "datasets": [
            {"resolution": 512, "subsets": [{"image_dir": "imgs", "keep_tokens": None}]},
        ],
    }
    path = write(project, "d.json", json.dumps(values))
    assert load_config(path, {}, project).datasets[0].subsets[0].keep_tokens == 2


def test_a_byte_order_mark_and_windows_line_ends_are_read_over(project):
    path = project / "d.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SIMPLE.replace("\n", "\r\n").encode())
    config = load_config(path, {}, project)
    assert config.origins["datasets.0.resolution"] == "d.toml:2"


def test_a_path_is_taken_from_the_current_folder_first_then_from_the_file(project, tmp_path):
    path = write(project, "sub/d.toml", SIMPLE)
    (project / "sub" / "imgs").mkdir()
    here = load_config(path, {}, project).datasets[0].subsets[0].image_dir
    (tmp_path / "elsewhere").mkdir()
    away = load_config(path, {}, tmp_path / "elsewhere").datasets[0].subsets[0].image_dir
    assert here == project / "imgs"
    assert away == project / "sub" / "imgs"


def test_a_dataset_file_is_found_beside_the_training_file(project):
    write(project, "set/d.toml", SIMPLE)
    path = write(project, "set/c.toml", "dataset_config = 'd.toml'\n")
    (project / "set" / "imgs").mkdir()
    (project / "away").mkdir()
    config = load_config(path, {}, project / "away")
    assert config.dataset_path == project / "set" / "d.toml"
    assert config.path == path


def test_resume_auto_is_a_word_and_anything_else_a_path(project):
    path = write(project, "d.toml", SIMPLE)
    assert load_config(path, {"resume": "auto"}, project).training.resume == "auto"
    resumed = load_config(path, {"resume": "st"}, project).training.resume
    assert resumed == str(project / "st")


def test_the_old_form_with_a_metadata_file_is_one_dataset_with_one_subset(project):
    flags = {
        "train_data_dir": "imgs",
        "in_json": "meta.json",
        "dataset_repeats": 3,
        "resolution": "512,768",
        "train_batch_size": 2,
        "shuffle_caption": True,
    }
    (dataset,) = load_config(None, flags, project).datasets
    (subset,) = dataset.subsets
    assert (dataset.resolution, dataset.batch_size) == ((512, 768), 2)
    assert subset.metadata_file == project / "meta.json"
    assert subset.image_dir == project / "imgs"
    assert (subset.num_repeats, subset.shuffle_caption) == (3, True)


def test_the_old_form_takes_repeats_and_class_from_the_folders_names(project):
    for name in ("20_sks cat", "1_dog", "notes"):
        (project / "imgs" / name).mkdir()
    config = load_config(None, {"train_data_dir": "imgs", "resolution": 512}, project)
    subsets = config.datasets[0].subsets
    assert [(s.num_repeats, s.class_tokens) for s in subsets] == [(1, "dog"), (20, "sks cat")]
    assert any("notes" in notice.what for notice in config.notices)


def test_a_plain_folder_is_a_subset_of_its_own(project):
    flags = {"train_data_dir": "imgs", "resolution": 512, "caption_extention": ".txt"}
    (subset,) = load_config(None, flags, project).datasets[0].subsets
    assert subset.image_dir == project / "imgs"
    assert subset.caption_extension == ".txt"


def test_the_old_forms_flags_are_not_used_beside_a_dataset_file(project):
    path = write(project, "d.toml", SIMPLE)
    config = load_config(path, {"train_data_dir": "more"}, project)
    assert config.datasets[0].subsets[0].image_dir == project / "imgs"
    assert "train_data_dir is not used" in config.notices[0].what


def test_a_subset_named_twice_in_a_dataset_counts_once(project):
    again = "[[datasets.subsets]]\nimage_dir = './imgs'\n"
    other = "[[datasets]]\nresolution = 256\n" + again
    config = load_config(write(project, "d.toml", SIMPLE + again + other), {}, project)
    assert [len(dataset.subsets) for dataset in config.datasets] == [1, 1]
    assert config.notices[0].where == "d.toml:5"


def test_a_subset_with_no_repeats_is_left_out_with_a_notice(project):
    more = "[[datasets.subsets]]\nimage_dir = 'more'\nnum_repeats = 0\n"
    config = load_config(write(project, "d.toml", SIMPLE + more), {}, project)
    assert len(config.datasets[0].subsets) == 1
    assert "num_repeats" in config.notices[0].what


def test_a_general_caption_extension_is_fine_with_metadata_files(project):
    text = (
        "[general]\ncaption_extension = '.txt'\n[[datasets]]\nresolution = 512\n"
        "[[datasets.subsets]]\nmetadata_file = 'meta.json'\n"
    )
    (subset,) = load_config(write(project, "d.toml", text), {}, project).datasets[0].subsets
    assert subset.caption_extension == ".caption"


def test_bucket_limits_are_brought_to_the_step_with_a_notice(project):
    text = "[general]\nenable_bucket = true\nmin_bucket_reso = 300\nmax_bucket_reso = 1000\n"
    config = load_config(write(project, "d.toml", text + SIMPLE), {}, project)
    dataset = config.datasets[0]
    assert (dataset.min_bucket_reso, dataset.max_bucket_reso) == (256, 1024)
    assert len(config.notices) == 2


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        ({"use_8bit_adam": True}, "optimizer_type", "AdamW8bit"),
        ({"use_lion_optimizer": True}, "optimizer_type", "Lion"),
        ({"optimizer_type": "adafactor"}, "optimizer_type", "Adafactor"),
        ({"optimizer_type": "sgd"}, "optimizer_type", "torch.optim.SGD"),
        ({"optimizer_type": "a.B"}, "optimizer_type", "a.B"),
        ({"optimizer_type": ""}, "optimizer_type", "AdamW"),
        ({"use_safetensors": True}, "save_model_as", "safetensors"),
        ({"use_safetensors": True, "save_model_as": "ckpt"}, "save_model_as", "ckpt"),
        ({"diffusers_xformers": True}, "attention", "xformers"),
        ({"mem_eff_attn": True, "xformers": True}, "attention", "mem_eff"),
        ({"max_token_length": "225"}, "max_token_length", 225),
        ({"optimizer_args": ["a=1", "b=2"]}, "optimizer_args", ("a=1", "b=2")),
        ({"optimizer_args": "a=1"}, "optimizer_args", ("a=1",)),
        ({"max_train_time": "1h30m"}, "max_train_time", 5400.0),
        ({"v2": "true"}, "v2", True),
    ],
)
def test_short_forms_and_text_are_understood(project, flags, name, value):
    config = load_config(write(project, "d.toml", SIMPLE), flags, project)
    assert getattr(config.training, name) == value


@pytest.mark.parametrize(
    ("written", "read"),
    [("500", 500), ('"500"', 500), ("0.1", 0.1), ('"10%"', 0.1), ("0", 0), ("1.0", 1)],
)
def test_warm_up_is_a_number_of_steps_or_a_share(project, written, read):
    text = f"lr_scheduler = 'cosine'\nlr_warmup_steps = {written}\n" + SIMPLE
    steps = load_config(write(project, "c.toml", text), {}, project).training.lr_warmup_steps
    assert steps == read
    assert type(steps) is type(read)


def test_it_is_said_that_an_augmentation_leaves_images_out_of_the_cache(project):
    config = load_config(write(project, "d.toml", SIMPLE + "color_aug = true\n"), {}, project)
    assert "color_aug" in config.notices[0].what
    assert "encoded in each step" in config.notices[0].what


def test_an_option_whose_effect_is_there_anyway_is_accepted_with_a_notice(project):
    text = "tokenizer_cache_dir = 'x'\nhighvram = false\n" + SIMPLE
    config = load_config(write(project, "c.toml", text), {}, project)
    (notice,) = config.notices
    assert notice.what.startswith("tokenizer_cache_dir is not needed")


def test_a_refused_flag_that_is_false_asks_for_nothing(project):
    config = load_config(write(project, "c.toml", "deepspeed = false\n" + SIMPLE), {}, project)
    assert config.notices == ()


def test_a_setting_can_be_replaced_in_a_loaded_config(project):
    config = load_config(write(project, "d.toml", SIMPLE), {}, project)
    assert config.with_training(seed=5).training.seed == 5
    assert config.training.seed is None


def test_no_dataset_is_no_problem_where_none_is_needed(project):
    config = load_config(None, {"seed": 1}, project, need_dataset=False)
    assert config.datasets == ()
    with pytest.raises(ConfigError, match="no images"):
        load_config(None, {"seed": 1}, project)
