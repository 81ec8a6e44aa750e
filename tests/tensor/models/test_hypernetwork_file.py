"""The files of hypernetworks: what is written, what is read of others, and what is refused."""

from __future__ import annotations

import pytest
import torch

from sdft.errors import DataError
from sdft.models.checkpoint import read
from sdft.models.hypernetwork import load_hypernetwork
from sdft.models.hypernetwork_file import HypernetworkFields, is_hypernetwork, read_hypernetwork
from tests.tensor.models.hypernetworks import DEEP, strong, web_ui_table, write


@pytest.mark.parametrize("form", ["pt", "safetensors"])
@pytest.mark.parametrize("fields", [HypernetworkFields(step=3, name="n"), DEEP])
def test_a_written_file_reads_back_to_the_same_bits_and_fields(tmp_path, form, fields):
    network = strong([32, 64], fields)
    file = read_hypernetwork(write(tmp_path / f"x.{form}", network, fields, form))
    assert is_hypernetwork(file.path)
    assert file.form == form
    assert file.widths == (32, 64)
    assert file.metadata["modelspec.title"] == "t"
    assert file.fields.structure == fields.structure
    assert (file.fields.step, file.fields.name) == (fields.step, fields.name)
    loaded = load_hypernetwork(file).state_dict()
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded[name], w) for name, w in network.state_dict().items())


def test_a_pt_has_the_documented_keys_shapes_and_fields(tmp_path):
    fields = HypernetworkFields(
        step=1200, name="cats", activate_output=False, sd_checkpoint="0123456789"
    )
    network = strong([320, 768], fields)
    table = torch.load(write(tmp_path / "x.pt", network, fields, "pt"), weights_only=True)
    assert [key for key in table if isinstance(key, int)] == [320, 768]
    for width in (320, 768):
        pair = table[width]
        assert len(pair) == 2
        for module, mine in zip(pair, network.pair(width), strict=True):
            assert {name: tuple(tensor.shape) for name, tensor in module.items()} == {
                "linear.0.weight": (2 * width, width),
                "linear.0.bias": (2 * width,),
                "linear.1.weight": (width, 2 * width),
                "linear.1.bias": (width,),
            }
            mine.load_state_dict(module)
    del table[320], table[768], table["sdft_metadata"]
    assert table == {
        "step": 1200,
        "name": "cats",
        "layer_structure": [1.0, 2.0, 1.0],
        "activation_func": "linear",
        "is_layer_norm": False,
        "weight_initialization": "Normal",
        "use_dropout": False,
        "activate_output": False,
        "last_layer_dropout": False,
        "dropout_structure": [0.0, 0.0, 0.0],
        "sd_checkpoint": "0123456789",
        "sd_checkpoint_name": None,
        "optional_info": None,
    }


@pytest.mark.parametrize("older", [False, True])
def test_what_torch_saved_is_read_with_the_values_of_absent_fields(tmp_path, older):
    network = strong([32, 64])
    torch.save(
        web_ui_table(network, step=500, name="theirs"),
        tmp_path / "x.pt",
        _use_new_zipfile_serialization=not older,
    )
    file = read_hypernetwork(tmp_path / "x.pt")
    assert file.fields == HypernetworkFields(step=500, name="theirs")
    loaded = load_hypernetwork(file).state_dict()
    assert all(torch.equal(loaded[name], w) for name, w in network.state_dict().items())
    # NovelAI's have lists for pairs and no fields at all.
    torch.save(
        {width: list(pair) for width, pair in web_ui_table(network).items()}, tmp_path / "n.pt"
    )
    assert read_hypernetwork(tmp_path / "n.pt").fields == HypernetworkFields(name="n")


def test_the_very_old_names_of_the_layers_are_read(tmp_path):
    network = strong([64])
    old = {
        64: [
            {
                n.replace("linear.0", "linear1").replace("linear.1", "linear2"): w
                for n, w in m.items()
            }
            for m in web_ui_table(network)[64]
        ]
    }
    assert "linear2.bias" in old[64][0]
    torch.save(old, tmp_path / "old.pt")
    loaded = load_hypernetwork(read_hypernetwork(tmp_path / "old.pt")).state_dict()
    assert all(torch.equal(loaded[name], w) for name, w in network.state_dict().items())


class Trap:
    """Writes a file if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_pickle_is_run(tmp_path):
    table = web_ui_table(strong([64]), name="trap", optional_info=Trap(tmp_path / "sprung"))
    torch.save(table, tmp_path / "x.pt")
    with pytest.raises(DataError, match="nothing in it was run"):
        read_hypernetwork(tmp_path / "x.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_save_in_fp16_is_rounded_and_an_overflow_is_named(tmp_path):
    network = strong([64])
    path = write(tmp_path / "x.pt", network, HypernetworkFields(), "pt", save_precision="fp16")
    tensors = read_hypernetwork(path).tensors()
    for name, weight in network.state_dict().items():
        assert torch.equal(read(tensors[name]), weight.half())
    network.state_dict()["64.v.linear.1.bias"][3] = 1e6
    named = []
    more = {"save_precision": "fp16", "on_overflow": named.append}
    write(tmp_path / "y.pt", network, HypernetworkFields(), "pt", **more)
    assert named == ["64.v.linear.1.bias"]


def broken(change):
    """Return a table that `change` spoils."""
    table = web_ui_table(strong([32, 64]))
    return change(table) or table


MIXED = {
    "one width deeper": lambda t: t | {64: web_ui_table(strong([64], DEEP))[64]},
    "fields of another structure": lambda t: t | {"activation_func": "relu"},
    "a layer of another width": lambda t: t | {64: t[32]},
    "a module for keys alone": lambda t: t | {64: t[64][:1]},
    "an empty module": lambda t: t | {64: (t[64][0], {})},
    "one layer missing": lambda t: t[32][1].popitem() and None,
    "a number for a tensor": lambda t: t | {64: ({"linear.0.weight": 3}, t[64][1])},
    "an unknown activation": lambda t: t | {"activation_func": "sinus"},
    "an activation that halves": lambda t: t | {"activation_func": "glu"},
    "a structure that ends elsewhere": lambda t: t | {"layer_structure": [1, 2]},
    "a structure of words": lambda t: t | {"layer_structure": ["a"]},
    "a layer under two names": lambda t: t[64][0].update({"linear1.bias": torch.zeros(128)}),
    "a number without end": lambda t: t | {"layer_structure": [1, 10**5000, 1]},
    "a step without end": lambda t: t | {"step": 10**5000},
    "a width without end": lambda t: t | {10**5000: t[64]},
    "a name that is a number": lambda t: t | {"name": 3},
    "a flag that is a text": lambda t: t | {"is_layer_norm": "yes"},
    "a step that is none": lambda t: t | {"step": "many"},
    "whole numbers for weights": lambda t: t[32][0].update(
        {"linear.0.bias": torch.zeros(64).int()}
    ),
    "dropout of another length": lambda t: t | {"use_dropout": True, "dropout_structure": [0, 0]},
}


@pytest.mark.parametrize("case", MIXED)
def test_a_file_whose_parts_do_not_fit_is_refused(tmp_path, case):
    torch.save(broken(MIXED[case]), tmp_path / "x.pt")
    with pytest.raises(DataError) as caught:
        read_hypernetwork(tmp_path / "x.pt")
    assert caught.value.exit_code == 4
    assert str(tmp_path / "x.pt") in str(caught.value)


@pytest.mark.parametrize("form", ["pt", "safetensors"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.999])
def test_a_truncated_file_is_refused(tmp_path, form, share):
    path = write(tmp_path / f"x.{form}", strong([32, 64]), HypernetworkFields(), form)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError):
        read_hypernetwork(path)
