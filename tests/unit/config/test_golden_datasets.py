"""Dataset files as people write them: ten that are right, twenty that are wrong in several ways."""

import json
from pathlib import Path

import pytest

from sdft.config.load import load_config
from sdft.errors import ConfigError

GOLDEN = Path(__file__).parents[2] / "golden" / "datasets"
FILES = sorted(path for path in GOLDEN.iterdir() if ".expected" not in path.name)


@pytest.fixture
def project(tmp_path):
    for name in ("imgs", "more", "reg", "masks", "with space/日本語 [x]"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("meta.json", "more.jsonl"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def not_default(table, project):
    """Return the values of a resolved table that are not the defaults, as JSON holds them."""
    values = {}
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if name == "subsets":
            values[name] = [not_default(subset, project) for subset in value]
        elif value != field.default:
            is_path = isinstance(value, Path)
            plain = value.relative_to(project).as_posix() if is_path else value
            values[name] = list(plain) if isinstance(plain, tuple) else plain
    return values


def test_there_are_ten():
    assert len(FILES) == 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dataset_file_means_what_the_rules_say(project, path):
    expected = json.loads((GOLDEN / f"{path.stem}.expected.json").read_text("utf-8"))
    copy = project / path.name
    copy.write_bytes(path.read_bytes())
    config = load_config(copy, {}, project)
    assert [not_default(dataset, project) for dataset in config.datasets] == expected["datasets"]
    assert len(config.notices) == expected["notices"], [str(one) for one in config.notices]


HEAD = "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'imgs'\n"

BROKEN = {
    "keys misspelt on every level": (
        "[general]\nenable_buckets = true\n[[datasets]]\nresolution = 512\nbatchsize = 2\n"
        "[[datasets.subsets]]\nimage_dir = 'imgs'\nnum_repeat = 3\n",
        ["2 enable_bucket", "5 batch_size", "8 num_repeats"],
    ),
    "keys on the wrong level": (
        "[general]\nimage_dir = 'imgs'\n" + HEAD + "resolution = 640\nenable_bucket = true\n",
        ["2 [[datasets.subsets]]", "7 [general] or [[datasets]]", "8 [[datasets]]"],
    ),
    "values of the wrong kind": (
        "[general]\nkeep_tokens = 'one'\nflip_aug = 3\n" + HEAD + "num_repeats = 1.5\n",
        ["2 a whole number", "3 true or false", "8 a whole number"],
    ),
    "numbers out of range": (
        HEAD + "caption_dropout_rate = 2\ncaption_tag_dropout_rate = -0.1\ntoken_warmup_min = 0\n",
        ["5 from 0 to 1", "6 from 0 to 1", "7 1 or more"],
    ),
    "the command line's names": (
        "[general]\ntrain_batch_size = 2\ndataset_repeats = 2\n" + HEAD + "in_json = 'meta.json'\n",
        ["2 batch_size", "3 num_repeats", "8 metadata_file"],
    ),
    "training settings": (
        "[general]\nlearning_rate = 1e-6\n" + HEAD + "max_train_steps = 10\n",
        ["2 training setting", "7 training setting"],
    ),
    "folders that are not there": (
        HEAD.replace("imgs", "img") + "[[datasets.subsets]]\nimage_dir = 'mroe'\n",
        ['4 "imgs"', '6 "more"'],
    ),
    "a metadata file that is not there, and one more key": (
        HEAD + "metadata_file = 'mata.json'\nshufle_caption = true\n",
        ['5 "meta.json"', "6 shuffle_caption"],
    ),
    "no resolution and no images": (
        "[[datasets]]\nbatch_size = 1\n[[datasets.subsets]]\nnum_repeats = 1\n",
        ["1 no resolution", "3 image_dir"],
    ),
    "two methods in one dataset, and a bad size": (
        HEAD.replace("512", "'big'") + "[[datasets.subsets]]\nmetadata_file = 'meta.json'\n",
        ["1 mixes", "2 [width, height]"],
    ),
    "words that need caption files": (
        HEAD + "metadata_file = 'meta.json'\nclass_tokens = 'cat'\nis_reg = true\n",
        ["6 no meaning", "7 no meaning"],
    ),
    "limits of buckets": (
        "[general]\nenable_bucket = true\nmin_bucket_reso = 2048\nbucket_reso_step = 32\n" + HEAD,
        ["3 above max_bucket_reso 1024", "4 bucket_reso_steps"],
    ),
    "two datasets, each with its own mistake": (
        HEAD + "keep_token = 1\n" + HEAD.replace("512", "0") + "flip_augm = true\n",
        ["5 keep_tokens", "7 0 is not", "10 flip_aug"],
    ),
    "sizes": (
        HEAD.replace("512", "[512, 0]")
        + HEAD.replace("512", "-64")
        + HEAD.replace("512", "'512x512'"),
        ["2 [width, height]", "6 [width, height]", "10 [width, height]"],
    ),
    "faces and extensions": (
        HEAD + "face_crop_aug_range = [3, 1]\ncaption_extension = 5\n",
        ["5 two numbers", "6 text"],
    ),
    "choices": (
        HEAD + "resize_interpolation = 'lanczo'\nalpha_mask = 'yes please'\n",
        ["5 lanczos", "6 true or false"],
    ),
    "ControlNet's pictures and a mask of the same image": (
        HEAD + "conditioning_data_dir = 'masks'\nalpha_mask = true\n",
        ["5 ControlNet", "6 one mask"],
    ),
    "a table that is no array, and a stray key": (
        "[generl]\nflip_aug = true\n[datasets]\nresolution = 512\n",
        ['1 mean "general"', "3 [[datasets]]"],
    ),
    "paths that lost their backslashes": (
        HEAD.replace("'imgs'", '"D:\\tools\\new"')
        + '[[datasets.subsets]]\nimage_dir = "D:\\r\\n"\n',
        ["4 'D:\\tools\\new'", "6 'D:\\r\\n'"],
    ),
    "empty and negative": (
        HEAD.replace("'imgs'", "''") + "num_repeats = -1\nkeep_tokens = -2\n",
        ["4 empty", "5 0 or more", "6 0 or more"],
    ),
}


def test_there_are_twenty():
    assert len(BROKEN) == 20


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_tells_all_its_mistakes_with_line_and_help(project, name):
    text, wanted = BROKEN[name]
    (project / "d.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"dataset_config": "d.toml"}, project)
    told = [str(problem) for problem in caught.value.problems]
    lines = [message.partition(": ")[0] for message in told]
    assert lines == [f"d.toml:{one.partition(' ')[0]}" for one in wanted], told
    for message, one in zip(told, wanted, strict=True):
        assert one.partition(" ")[2] in message
