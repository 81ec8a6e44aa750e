"""Captions, tags and metadata of images in tar shards, keyed as training reads them."""

import io
import json
import tarfile

import pytest

from sdft.dataset.index import build_index
from sdft.dataset.records import SubsetSpec
from sdft.events import ignore
from tests.cli.commands import sdft
from tests.cli.test_caption_command import make_images
from tests.tensor.labelers.onnx_models import save_wd14
from tests.tensor.labelers.tiny_captioners import save_blip


@pytest.fixture(scope="module")
def blip(module_folder):
    return save_blip(module_folder("models") / "blip")


@pytest.fixture(scope="module")
def tagger(module_folder):
    return save_wd14(module_folder("wd14"))


def pack(path, files):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def plain(tmp_path):
    return make_images(tmp_path / "plain", 5)


@pytest.fixture
def packed(tmp_path, plain):
    """The same images in two shards."""
    folder = tmp_path / "packed"
    contents = {path.name: path.read_bytes() for path in sorted(plain.iterdir())}
    for number, names in enumerate((("0.png", "3.png"), ("1.png", "2.png", "4.png"))):
        pack(folder / f"{number}.tar", {name: contents[name] for name in names})
    return folder


def captions_in_training(folder, table):
    """Return each image's caption as training has it, and what it says."""
    spec = SubsetSpec(image_dir=folder, metadata_file=table, caption_extension=".txt")
    index = build_index([[spec]], emit=ignore)
    return {item.key: item.caption for item in index.items}, index.notices


def test_captions_and_tags_of_shards_go_into_one_file_that_training_reads(
    packed, plain, tmp_path, blip, tagger, capsys
):
    out = tmp_path / "words.json"
    words = ("caption", packed, "--model", blip, "--output_path", out, "--json")
    code, result, err = sdft(capsys, *words)
    assert (code, result["labelled"], result["output"], result["problems"]) == (
        0,
        5,
        str(out),
        [],
    ), err
    before = {path.name: path.read_bytes() for path in packed.iterdir()}
    words = ("tag", packed, "--model", tagger, "--thresh", 0, "--output_path", out, "--json")
    assert sdft(capsys, *words)[0] == 0
    assert {path.name: path.read_bytes() for path in packed.iterdir() if path.is_file()} == before
    # The same words as unpacked, under the same keys.
    sdft(capsys, "caption", plain, "--model", blip)
    sdft(capsys, "tag", plain, "--model", tagger, "--thresh", 0)
    expected = {
        f"{number}.png": ",".join(
            (plain / f"{number}{suffix}").read_text().strip() for suffix in (".caption", ".txt")
        )
        for number in range(5)
    }
    found, notices = captions_in_training(packed, out)
    assert found == expected
    assert notices == ()
    # Nothing is left to do, and a second run of either keeps what the other wrote.
    content = out.read_bytes()
    words = ("caption", packed, "--model", blip, "--output_path", out, "--json")
    code, result, _ = sdft(capsys, *words)
    assert (code, result["labelled"], result["finished"]) == (0, 0, 5)
    assert out.read_bytes() == content


def test_words_cannot_go_beside_images_in_shards(packed, blip, capsys):
    code, _, err = sdft(capsys, "caption", packed, "--model", blip)
    assert code == 2
    assert "nothing can be written beside images in tar shards" in err
    assert "--output_path words.json" in err
    code, _, err = sdft(capsys, "tag", packed, "--model", "nothing/there")
    assert (code, "beside images in tar shards" in err) == (2, True)


def test_several_processes_share_the_images_of_shards(packed, tmp_path, blip, capsys):
    tables = []
    for num_processes in (1, 2):
        out = tmp_path / f"{num_processes}.json"
        words = ("caption", packed, "--model", blip, "--output_path", out, "--device", "cpu")
        assert sdft(capsys, *words, "--num_processes", num_processes)[0] == 0
        tables.append(out.read_bytes())
    assert tables[0] == tables[1]


def test_names_that_two_shards_have_get_the_keys_of_training(tmp_path, blip, capsys, plain):
    content = (plain / "0.png").read_bytes()
    other = (plain / "1.png").read_bytes()
    folder = tmp_path / "twice"
    pack(folder / "a.tar", {"0.png": content})
    pack(folder / "b.tar", {"0.png": other})
    out = tmp_path / "words.json"
    code, _, err = sdft(capsys, "caption", folder, "--model", blip, "--output_path", out)
    assert code == 0
    assert "stand in several shards" in err
    found, _ = captions_in_training(folder, out)
    assert sorted(found) == ["a.tar/0.png", "b.tar/0.png"]
    assert all(found.values())


def test_members_are_merged_into_a_metadata_file(packed, tmp_path, plain, capsys):
    image = (plain / "0.png").read_bytes()
    pack(
        packed / "2.tar",
        {
            "8.png": image + b"8",
            "8.caption": b"a cat",
            "8.txt": b"cat, grass",
            "9.png": image + b"9",
            "9.json": json.dumps({"caption": "a dog", "tags": "dog"}).encode(),
        },
    )
    out = tmp_path / "meta.json"
    code, result, err = sdft(capsys, "metadata", "merge", packed, "--out", out, "--json")
    assert (code, result["entries"], result["added"]) == (0, 7, 4), err
    assert len(result["without_words"]) == 5
    entries = json.loads(out.read_text("utf-8"))
    assert entries["8.png"] == {"caption": "a cat", "tags": "cat, grass"}
    assert entries["9.png"] == {"caption": "a dog", "tags": "dog"}
    found, _ = captions_in_training(packed, out)
    assert (found["8.png"], found["9.png"]) == ("a cat,cat, grass", "a dog,dog")
    # As unpacked, so that `check` finds each key's image.
    code, result, _ = sdft(capsys, "metadata", "check", out, packed, "--json")
    kinds = {finding["kind"] for finding in result["findings"]}
    assert "words without image" not in kinds
    assert result["images"] == 7


def test_a_broken_shard_and_a_single_shard_are_named(packed, tmp_path, blip, capsys):
    out = tmp_path / "words.json"
    words = ("--model", blip, "--output_path", out)
    code, _, err = sdft(capsys, "caption", packed / "0.tar", *words)
    assert (code, "name the folder that they lie in" in err) == (4, True), err
    (packed / "0.tar").write_bytes((packed / "0.tar").read_bytes()[:700])
    code, _, err = sdft(capsys, "caption", packed, *words)
    assert (code, "a tar shard that cannot be used: cut off" in err) == (4, True), err
    code, _, err = sdft(capsys, "tag", "s3://bucket/shards", "--output_path", out)
    assert (code, "on this machine's disk only" in err) == (2, True), err
