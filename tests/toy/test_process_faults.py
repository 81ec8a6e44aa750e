"""What goes wrong in one of several processes is said once, by the process that saw it."""

from __future__ import annotations

import socket

import pytest

from tests.toy.in_ranks import events, long, losses


def test_processes_that_were_started_differently_say_in_what(ground, tmp_path):
    config = ground.write_config(tmp_path)
    argvs = [["train", str(config)], ["train", str(config), "--learning_rate", "0.5"]]
    ran = ground.again(tmp_path, config, ranks=2, argvs=argvs).require(2, 2)
    said = " ".join(ran.said[0].split())
    assert "process 1 of 2" in said
    assert "learning_rate is 0.5, and 0.01 in process 0" in said
    assert ran.said[1] == ""


def test_images_that_one_process_does_not_see_are_named_with_it(ground, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    # The same name for all, and something else for each, as on two machines.
    config = ground.write_config(tmp_path, image_dir="/proc/self/cwd/images")
    places = [str(ground.folder), str(tmp_path / "elsewhere")]
    ran = ground.again(tmp_path, config, ranks=2, cwds=places, ends_all=True)
    assert ran.codes[1] == 2
    assert "process 1 of 2: " in ran.said[1]
    assert "no such folder: /proc/self/cwd/images" in ran.said[1]
    assert ran.said[0] == ""


def test_a_cache_that_one_process_does_not_see_is_named_with_it(ground, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    config = ground.write_config(tmp_path, cache_dir="/proc/self/cwd/cache")
    places = [str(ground.folder), str(tmp_path / "elsewhere")]
    ran = ground.again(tmp_path, config, ranks=2, cwds=places).require(4, 4)
    assert "process 1 of 2" in ran.said[0]
    assert "it sees another cache than process 0" in ran.said[0]
    assert ran.said[1] == ""
    assert list((ground.folder / "cache").glob("seen-*")) == []


@pytest.mark.parametrize("on_bad_step", ["stop", long("skip")])
def test_a_loss_that_is_no_number_is_named_once_with_its_image(ground, tmp_path, on_bad_step):
    config = ground.write_config(tmp_path, batch_size=2, on_bad_step=on_bad_step, max_bad_steps=3)
    how = {"breaks": {"rank": 1, "backward": 2}}
    ran = ground.again(tmp_path, config, ranks=2, **how)
    assert ran.said[1] == ""
    if on_bad_step == "stop":
        assert ran.codes == [4, 76]
        assert "step 2 cannot be used: the loss is no number for" in ran.said[0]
        return
    ran.require(0, 0)
    left_out = [line for line in events(tmp_path) if line.get("topic") == "bad step"]
    assert [line["message"][:44] for line in left_out] == [
        "step 2 is left out: the loss is no number fo"
    ]
    assert 2 not in losses(tmp_path)


def test_a_port_that_is_taken_is_named_by_the_process_that_needs_it(ground, tmp_path):
    config = ground.write_config(tmp_path)
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1])
        place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        variables = [place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}]
        ran = ground.again(tmp_path, config, ranks=1, variables=variables).require(3)
    assert "process 0 of 2" in ran.said[0]
    assert f"127.0.0.1:{port}" in ran.said[0]
    assert "in use" in ran.said[0]
