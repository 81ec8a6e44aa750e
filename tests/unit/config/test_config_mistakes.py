"""What is said of mistakes: where, what, and how to mend them; all of them at once."""

import json

import pytest

from sdft.config.load import load_config
from sdft.errors import ConfigError

SIMPLE = "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'imgs'\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "imgs").mkdir()
    (tmp_path / "meta.json").write_text("{}")
    return tmp_path


def mistakes(project, text, flags=None, name="c.toml", **options):
    """Return the messages of a load that fails, one text a problem."""
    (project / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(project / name, flags or {}, project, **options)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


# Text of a file, then what its one message must hold.
ONE_MISTAKE = {
    "misspelt key": ("learning_rat = 1\n", ["c.toml:1", 'mean "learning_rate"']),
    "misspelt table": ("[general]\n[[dataset]]\nresolution = 1\n", ["c.toml:2", 'mean "datasets"']),
    "wrong type": ('max_train_steps = "many"\n', ["c.toml:1", "a whole number, 1 or more", "many"]),
    "part of a step": ("max_train_steps = 1.5\n", ["a whole number", "1.5"]),
    "true for a number": ("learning_rate = true\n", ["a number", "true is not"]),
    "nan": ("learning_rate = nan\n", ["a number", "nan"]),
    "list for a text": ("output_name = [1]\n", ["output_name must be text"]),
    "bad choice": ('mixed_precision = "fp61"\n', ["no, fp16, bf16", 'mean "fp16"']),
    "bad number of choice": ("max_token_length = 100\n", ["75, 150, 225", "100"]),
    "bad optimizer": ('optimizer_type = "AdamW8bits"\n', ['mean "AdamW8bit"']),
    "bad arguments": ('optimizer_args = ["weight_decay"]\n', ["name=value"]),
    "out of range": ("clip_skip = 0\n", ["from 1 to 12"]),
    "bad duration": ('max_train_time = "soon"\n', ["7h30m"]),
    "bad share": ("lr_warmup_steps = 1.5\n", ["share below 1"]),
    "bad percentage": ('lr_warmup_steps = "120%"\n', ["percentage"]),
    "empty path": ('output_dir = ""\n', ["output_dir is empty"]),
    "number for a path": ("vae = 3\n", ["a path", "3"]),
    "refused": (
        "zero_stage = 2\n",
        ["c.toml:1", "DeepSpeed is not used", "fsdp does what ZeRO 3 does"],
    ),
    "refused LoRA": ('network_module = "lora"\n', ["LoRA is not supported"]),
    "LoRA": ("network_dim = 32\n", ["c.toml:1", "belongs to LoRA, which is not supported"]),
    "YAML": ("learning_rate: 1e-5\n", ["c.toml:1", "stands =, not :", "YAML is not read"]),
    "subset key outside": ('image_dir = "x"\n', ["train_data_dir"]),
    "windows path": (
        'output_dir = "D:\\train\\new"\n',
        ["c.toml:1", "tab", "'D:\\train\\new'", '"D:/train/new"'],
    ),
    "set twice": ("seed = 1\n[a]\nseed = 2\n", ["set twice, first in c.toml:1", "c.toml:3"]),
    "warm-up of constant": ("lr_warmup_steps = 10\n", ["c.toml:1", "constant_with_warmup"]),
    "timesteps": ("min_timestep = 500\nmax_timestep = 500\n", ["not below max_timestep"]),
    "no offset": ("adaptive_noise_scale = 0.1\n", ["needs noise_offset"]),
    "fp16 without": ("full_fp16 = true\n", ["needs mixed_precision fp16; it is no"]),
    "no prompts": ("sample_every_n_steps = 5\n", ["c.toml:1", "needs sample_prompts"]),
    "never saved": ("save_every_n_steps = 0\n", ["1 or more"]),
    "two optimizers": (
        'use_8bit_adam = true\noptimizer_type = "Lion"\n',
        ["c.toml:1", "AdamW8bit", "Lion"],
    ),
    "name with folder": ('output_name = "a/b"\n', ["cannot be a file name", "output_dir"]),
    "no floor": ('lr_scheduler = "cosine_with_min_lr"\n', ["lr_scheduler_min_lr_ratio"]),
    "too long a warm-up": (
        'lr_scheduler = "linear"\nmax_train_steps = 9\nlr_warmup_steps = 10\n',
        ["10 steps of 9"],
    ),
    "fused with accumulation": (
        "fused_backward_pass = true\ngradient_accumulation_steps = 4\n",
        ["c.toml:1", "added up over 4 batches", "larger batch_size"],
    ),
    "fused with a loss scale": (
        'fused_backward_pass = true\nmixed_precision = "fp16"\n',
        ["c.toml:1", "loss scale of fp16", '"bf16"'],
    ),
    "fused with bad steps left out": (
        'fused_backward_pass = true\non_bad_step = "skip"\n',
        ["c.toml:1", "none can be left out", '"stop"'],
    ),
    "fused with an optimizer of all weights": (
        'fused_backward_pass = true\noptimizer_type = "Prodigy"\n',
        ["c.toml:1", "looks at all weights at once", "AdamW8bit"],
    ),
    "states moved by two": (
        'optimizer_states_on_cpu = true\noptimizer_type = "PagedAdamW8bit"\n',
        ["c.toml:1", "moves its state by itself", "use AdamW8bit"],
    ),
    "spread weights that change in the backward pass": (
        "fsdp = true\nfused_backward_pass = true\n",
        ["c.toml:1", "would change weights before that", "remove fused_backward_pass, or fsdp"],
    ),
    "spread states on the CPU": (
        "fsdp = true\noptimizer_states_on_cpu = true\n",
        ["c.toml:1", "spreads the optimizer's state"],
    ),
    "spread weights in 8-bit blocks": (
        'fsdp = true\noptimizer_type = "AdamW8bit"\n',
        ["c.toml:1", "AdamW8bit may look at others, or round them in blocks", "use AdamW"],
    ),
    "spread weights and a loss scale": (
        'fsdp = true\nmixed_precision = "fp16"\n',
        ["c.toml:1", "a loss scale that all processes share", '"bf16"'],
    ),
    "spread and compiled": (
        "fsdp = true\ntorch_compile = true\n",
        ["c.toml:1", "between compiled parts", "remove torch_compile, or fsdp"],
    ),
    "a spread hypernetwork": (
        "fsdp = true\nhypernetwork = true\n",
        ["c.toml:1", "a hypernetwork is small"],
    ),
    "spread half weights": (
        'fsdp = true\nfull_bf16 = true\nmixed_precision = "bf16"\n',
        ["c.toml:1", "keeps its part of the weights in float32"],
    ),
    "spread in another order": (
        "fsdp = true\nchannels_last = true\n",
        ["c.toml:1", "torch's usual order only"],
    ),
    "resume and replace": ('resume = "auto"\noverwrite = true\n', ["overwrite replaces"]),
}


@pytest.mark.parametrize("name", ONE_MISTAKE)
def test_a_training_mistake_gives_one_message_that_helps(project, name):
    text, parts = ONE_MISTAKE[name]
    (message,) = mistakes(project, text, {"train_data_dir": "imgs", "resolution": 512})
    for part in parts:
        assert part in message


DATASET_MISTAKES = {
    "misspelt key": (SIMPLE.replace("resolution", "resolutoin"), ["c.toml:2", '"resolution"']),
    "misspelt general": ("[general]\nbatchsize = 1\n" + SIMPLE, ["c.toml:2", '"batch_size"']),
    "wrong level": (SIMPLE + "batch_size = 2\n", ["c.toml:5", "[general] or [[datasets]]"]),
    "training key": (SIMPLE + "learning_rate = 2\n", ["c.toml:5", "training setting"]),
    "flag's name": ("[general]\ntrain_batch_size = 2\n" + SIMPLE, ["written batch_size"]),
    "no resolution": (SIMPLE.replace("resolution = 512", ""), ["c.toml:1", "--resolution"]),
    "bad resolution": (SIMPLE.replace("512", "[1, 2, 3]"), ["c.toml:2", "[width, height]"]),
    "resolution 0": (SIMPLE.replace("512", "0"), ["c.toml:2", "0 is not"]),
    "no subsets": ("[[datasets]]\nresolution = 512\n", ["c.toml:1", "no [[datasets.subsets]]"]),
    "no images named": (SIMPLE.replace("image_dir = 'imgs'", ""), ["c.toml:3", "add image_dir"]),
    "missing folder": (SIMPLE.replace("imgs", "img"), ["c.toml:4", "no such folder", '"imgs"']),
    "file for a folder": (SIMPLE.replace("imgs", "meta.json"), ["is not a folder"]),
    "missing metadata": (SIMPLE + "metadata_file = 'mata.json'\n", ["c.toml:5", '"meta.json"']),
    "mixed kinds": (
        SIMPLE + "[[datasets.subsets]]\nmetadata_file = 'meta.json'\n",
        ["c.toml:1", "mixes", "of its own"],
    ),
    "extension beside metadata": (
        SIMPLE + "metadata_file = 'meta.json'\ncaption_extension = '.txt'\n",
        ["c.toml:6", "no meaning"],
    ),
    "not an array": ("[datasets]\nresolution = 512\n", ["[[datasets]]"]),
    "rate above 1": (SIMPLE + "caption_dropout_rate = 1.5\n", ["c.toml:5", "from 0 to 1"]),
    "negative repeats": (SIMPLE + "num_repeats = -1\n", ["0 or more"]),
    "sides in the wrong order": (
        "[general]\nenable_bucket = true\nmin_bucket_reso = 2048\n" + SIMPLE,
        ["c.toml:3", "above max_bucket_reso 1024"],
    ),
    "resolution below the limits": (
        "[general]\nenable_bucket = true\n" + SIMPLE.replace("512", "128"),
        ["below min_bucket_reso 256", "128 or less"],
    ),
    "step of 7": (
        "[general]\nenable_bucket = true\nbucket_reso_steps = 63\n" + SIMPLE,
        ["multiple of 8"],
    ),
    "odd side": (SIMPLE.replace("512", "500"), ["multiples of 8", "496 or 504"]),
    "face crop in buckets": (
        "cache_latents = false\n[general]\nenable_bucket = true\n"
        + SIMPLE
        + "face_crop_aug_range = [1, 2]\n",
        ["only without buckets"],
    ),
    "cached random crop": (
        "cache_latents = true\n" + SIMPLE + "random_crop = true\n",
        ["cannot be cached"],
    ),
    "extension without dot": (SIMPLE + "caption_extension = 'txt'\n", ['write ".txt"']),
    "pictures for a ControlNet": (
        SIMPLE + "conditioning_data_dir = 'imgs'\n",
        ["c.toml:5", "ControlNet", "set masked_loss = true"],
    ),
    "two masks for one image": (
        "masked_loss = true\n" + SIMPLE + "conditioning_data_dir = 'imgs'\nalpha_mask = true\n",
        ["one mask"],
    ),
    "a masked loss without masks": (
        "masked_loss = true\n" + SIMPLE,
        ["c.toml:1", "no subset has masks", "conditioning_data_dir"],
    ),
    "windows folder": (
        SIMPLE.replace("'imgs'", '"D:\\new\\toys"'),
        ["c.toml:4", "'D:\\new\\toys'"],
    ),
    "tables of another kind": (SIMPLE + "extra = { a = 1 }\n", ["c.toml:5", 'unknown key "extra"']),
}


@pytest.mark.parametrize("name", DATASET_MISTAKES)
def test_a_dataset_mistake_gives_one_message_that_helps(project, name):
    text, parts = DATASET_MISTAKES[name]
    (message,) = mistakes(project, text)
    for part in parts:
        assert part in message


def test_all_mistakes_of_files_and_flags_come_at_once_in_reading_order(project):
    (project / "d.toml").write_text("[general]\nkeep_token = 1\n" + SIMPLE + "num_repeats = 'x'\n")
    text = "seed = -1\ndataset_config = 'd.toml'\nlearning_rat = 1\n"
    messages = mistakes(project, text, {"max_train_step": "5", "loss_type": "l3"})
    assert [message.partition(": ")[0] for message in messages] == [
        "c.toml:1",
        "c.toml:3",
        "d.toml:2",
        "d.toml:7",
        "--max_train_step",
        "--loss_type",
    ]
    assert 'mean "--max_train_steps"' in messages[4]


def test_a_training_key_in_a_dataset_file_of_its_own_is_sent_to_its_place(project):
    (project / "d.toml").write_text("learning_rate = 1\nbatch_size = 2\nfoo = 3\n" + SIMPLE)
    messages = mistakes(project, "dataset_config = 'd.toml'\n")
    assert [m.partition(": ")[0] for m in messages] == ["d.toml:1", "d.toml:2", "d.toml:3"]
    assert "training setting" in messages[0]
    assert "[general]" in messages[1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('a = "D:\\images\\x"\n', ["c.toml:1", "'D:\\images\\x'", '"D:/images/x"']),
        ("output_dir = out\n", ["c.toml:1", "quotes"]),
        ("a = 1\na = 2\n", ["c.toml:2"]),
        ("[general\n", ["c.toml:1"]),
        ("a = [1,\n", ["c.toml"]),
    ],
)
def test_broken_toml_says_the_line_and_how_to_mend_it(project, text, parts):
    (message,) = mistakes(project, text)
    assert "not valid TOML" in message
    for part in parts:
        assert part in message


def test_broken_json_says_the_line(project):
    text = '{"datasets": [\n{"subsets": [{"image_dir": "D:\\images"}]}]}'
    (message,) = mistakes(project, text, name="d.json")
    assert message.startswith("d.json:2")
    assert '"D:/images"' in message


@pytest.mark.parametrize("text", ["[1, 2]", "3", json.dumps("a")])
def test_json_that_is_no_object_is_refused(project, text):
    (message,) = mistakes(project, text, name="d.json")
    assert "one object" in message


def test_brackets_nested_without_end_are_refused(project):
    (message,) = mistakes(project, "a = " + "[" * 5000 + "]" * 5000)
    assert "nested too deeply" in message


def test_a_file_that_is_not_text_is_refused(project):
    (project / "c.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(project / "c.toml", {}, project)


def test_a_missing_config_names_the_nearest_file(project):
    (project / "config.toml").write_text(SIMPLE)
    with pytest.raises(ConfigError, match=r'did you mean "config.toml"'):
        load_config(project / "confg.toml", {}, project)


def test_a_folder_is_no_config(project):
    with pytest.raises(ConfigError, match="folder"):
        load_config(project / "imgs", {}, project)


def test_a_missing_dataset_file_is_told_where_it_is_named(project):
    (message,) = mistakes(project, "seed = 1\ndataset_config = 'd.toml'\n")
    assert message.startswith("c.toml:2: no such dataset file")


def test_datasets_inline_and_in_a_file_of_their_own_are_too_many(project):
    (project / "d.toml").write_text(SIMPLE)
    (message,) = mistakes(project, SIMPLE, {"dataset_config": "d.toml"})
    assert message.startswith("--dataset_config")


def test_what_only_training_needs_is_checked_for_training_only(project):
    (project / "c.toml").write_text("vae = 'no.pt'\nresume = 'st'\n" + SIMPLE)
    load_config(project / "c.toml", {}, project)
    text = (project / "c.toml").read_text()
    messages = mistakes(project, text, for_training=True)
    assert len(messages) == 4
    assert any("pretrained_model_name_or_path" in message for message in messages)
    assert any("output_dir" in message for message in messages)


def test_a_setting_that_has_no_effect_is_told(project):
    (project / "c.toml").write_text("learning_rate_te = 1e-6\nzero_terminal_snr = true\n" + SIMPLE)
    notices = load_config(project / "c.toml", {}, project).notices
    assert [notice.where for notice in notices] == ["c.toml:1", "c.toml:2"]
    assert "without train_text_encoder" in notices[0].what


@pytest.mark.parametrize("name", ["a[red]", "with space", "日本語", "emoji \U0001f600", "{x}"])
def test_names_that_need_care_are_taken_as_they_are(project, name):
    (project / name).mkdir()
    (project / "c.toml").write_text(SIMPLE.replace("imgs", name), encoding="utf-8")
    config = load_config(project / "c.toml", {}, project)
    assert config.datasets[0].subsets[0].image_dir == project / name
