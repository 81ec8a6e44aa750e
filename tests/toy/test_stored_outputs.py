"""Runs whose checkpoints and states go to an object store; memory:// needs no server."""

from __future__ import annotations

import json
import shutil
import uuid

import fsspec
import pytest

from sdft.dataset import drivers
from sdft.errors import EnvironmentFault, UserError
from sdft.events import CheckpointSaved, FileRemoved, Notice, StateSaved
from sdft.jobs.training.stored_outputs import StoredOutputs
from sdft.rundir import RunDir
from tests.toy.toy_runs import CONSTANT, messages, stop_after


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(drivers, "FIRST_WAIT_S", 0.001)
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def url():
    # The cache, where files are before they are sent, is that of all toy runs.
    return f"memory://models/{uuid.uuid4().hex}"


def names(store, url):
    """Return what is stored, by name, with contents."""
    root = store._strip_protocol(url) + "/"
    return {name.removeprefix(root): store.cat_file(name) for name in store.find(root)}


def states(store, url, name="toy"):
    found = (one.split("/") for one in names(store, url) if one.endswith("/manifest.json"))
    return sorted(parts[2] for parts in found if parts[0] == f"{name}.run")


def another_machine(latents):
    shutil.rmtree(latents / "outputs")


def test_a_run_goes_on_on_another_machine_to_the_same_bits(toy, store, url, tmp_path, latents):
    plain = toy(max_train_steps=6, **CONSTANT)
    how = {"output_dir": url, "max_train_steps": 6, "rolling_state_steps": 2} | CONSTANT
    first = toy(listen=stop_after(3), **how)
    assert first.error is not None
    assert states(store, url) == ["step00000003"]
    assert f"{url}/toy.run/states/step00000003" in [one.path for one in first.of(StateSaved)]
    assert [one.path for one in first.of(FileRemoved)] == [f"{url}/toy.run/states/step00000002"]
    shutil.move(latents / "outputs", tmp_path / "of the first machine")
    rest = toy(resume="auto", **how)
    assert rest.error is None
    assert sorted(rest.losses) == [4, 5, 6]
    assert first.losses | rest.losses == plain.losses
    there = names(store, url)
    assert there["toy.safetensors"][-1000:] == plain.result.checkpoint.read_bytes()[-1000:]
    assert str(rest.result.checkpoint) == f"{url}/toy.safetensors"
    assert [one.path for one in rest.of(CheckpointSaved)] == [f"{url}/toy.safetensors"]
    # What tells of the run is there, from its first step on; what concerns one machine is not.
    events = [json.loads(line) for line in there["toy.run/events.jsonl"].splitlines()]
    assert [one["step"] for one in events if one["event"] == "StepDone"] == [1, 2, 3, 4, 5, 6]
    assert json.loads(there["toy.run/run.json"])["state"] == "finished"
    assert {"toy.run/config.toml", "toy.run/fates.jsonl", "toy.run/log.txt"} <= there.keys()
    assert f'output_dir = "{url}"' in there["toy.run/config.toml"].decode()
    assert not [name for name in there if "lock.json" in name or "/states/" in name]
    # What is sent takes no room here.
    assert not list((latents / "outputs").rglob("*.safetensors"))
    another_machine(latents)
    again = toy(**how)
    assert again.result.already_done
    assert str(again.result.checkpoint) == f"{url}/toy.safetensors"
    # The first machine hears that another one came to the end.
    another_machine(latents)
    shutil.move(tmp_path / "of the first machine", latents / "outputs")
    assert toy(**how).result.already_done


def failing(monkeypatch, store, fails):
    """Let uploads of which `fails` says so break off."""
    real = type(store).put_file

    def put_file(self, local, remote, **kwargs):
        if fails(remote):
            real(self, local, remote, **kwargs)
            self.pipe_file(remote, self.cat_file(remote)[:10])
            raise OSError("the line broke")
        return real(self, local, remote, **kwargs)

    monkeypatch.setattr(type(store), "put_file", put_file)


def test_what_cannot_be_sent_does_not_count_and_the_older_state_stays(toy, store, url, monkeypatch):
    tries = []

    def fails(remote):
        if "step00000004/unet" in remote or "step00000004.saf" in remote:
            tries.append(remote)
            return len(tries) <= drivers.TRIES
        return False

    failing(monkeypatch, store, fails)
    seen = []

    def listen(event):
        if isinstance(event, StateSaved):
            seen.append((event.step, states(store, url)))

    how = {"output_dir": url, "max_train_steps": 6, "rolling_state_steps": 2} | CONSTANT
    run = toy(listen=listen, save_every_n_steps=4, **how)
    assert run.error is None
    # The checkpoint of step 4 waits, and the state behind it; both come before what is next.
    assert [step for step, _ in seen] == [2, 4, 6]
    assert [there for _, there in seen][:2] == [["step00000002"], ["step00000002", "step00000004"]]
    said = "\n".join(messages(run, "outputs"))
    assert "toy-step00000004.safetensors could not be sent" in said
    assert "does not count as saved" in said
    assert said.count("is tried again: OSError: the line broke") >= drivers.TRIES - 1
    saved = [event for event in run.events if isinstance(event, CheckpointSaved | StateSaved)]
    assert [(type(one), one.step) for one in saved] == [
        (StateSaved, 2),
        (CheckpointSaved, 4),
        (StateSaved, 4),
        (StateSaved, 6),
        (CheckpointSaved, 6),
    ]
    assert "toy-step00000004.safetensors" in names(store, url)


@pytest.mark.long
def test_a_store_that_is_gone_at_the_end_ends_the_run_and_is_caught_up_with(
    toy, store, url, monkeypatch
):
    is_gone = [False]
    failing(monkeypatch, store, lambda remote: is_gone[0])

    def listen(event):
        if isinstance(event, StateSaved) and event.step == 2:
            is_gone[0] = True

    how = {"output_dir": url, "max_train_steps": 3, "rolling_state_steps": 2} | CONSTANT
    run = toy(listen=listen, **how)
    assert isinstance(run.error, EnvironmentFault)
    assert "--resume auto" in str(run.error)
    assert not run.of(CheckpointSaved)
    is_gone[0] = False
    rest = toy(resume="auto", **how)
    assert rest.error is None
    assert "toy.safetensors" in names(store, url)
    assert json.loads(names(store, url)["toy.run/run.json"])["state"] == "finished"


@pytest.mark.long
def test_the_last_whole_state_is_found_by_listing(toy, store, url, latents):
    how = {"output_dir": url, "save_every_n_steps": 1, "save_state": True} | CONSTANT
    plain = toy("plain", max_train_steps=4, **CONSTANT)
    toy(max_train_steps=4, listen=stop_after(3), **how)
    kept = ["step00000001", "step00000002", "step00000003"]
    assert states(store, url) == kept
    another_machine(latents)
    root = store._strip_protocol(url) + "/toy.run/states"
    # Cut off before it was whole, and damaged.
    store.rm_file(f"{root}/step00000003/manifest.json")
    file = f"{root}/step00000002/unet.safetensors"
    content = bytearray(store.cat_file(file))
    content[-1] ^= 1
    store.pipe_file(file, bytes(content))
    rest = toy(max_train_steps=4, resume="auto", **how)
    assert rest.error is None
    assert "step00000002" in str(messages(rest, "resume"))
    assert sorted(rest.losses) == [2, 3, 4]
    assert rest.losses.items() <= plain.losses.items()


@pytest.mark.long
def test_a_state_named_by_its_url_is_gone_on_from(toy, store, url, tmp_path, latents):
    how = {"save_every_n_steps": 1, "save_state": True} | CONSTANT
    whole = toy(output_dir=url, max_train_steps=3, **how)
    another_machine(latents)
    state = f"{url}/toy.run/states/step00000001"
    elsewhere = toy("elsewhere", max_train_steps=3, resume=state, **CONSTANT)
    assert elsewhere.error is None
    assert elsewhere.losses.items() <= whole.losses.items()
    assert sorted(elsewhere.losses) == [2, 3]
    back = toy(
        output_dir=url,
        max_train_steps=3,
        resume=state,
        learning_rate=1e-5,
        allow_changed="learning_rate",
        **how,
    )
    assert back.error is None
    assert sorted(back.losses) == [2, 3]
    # What came after it is there under another name.
    assert {"step00000001", "step00000002", "step00000002-1"} <= set(states(store, url))
    missing = toy("more", max_train_steps=3, resume=f"{url}/toy.run/states/step00000009")
    assert isinstance(missing.error, UserError)
    assert "no such state" in str(missing.error)


@pytest.mark.long
def test_nothing_there_is_written_over_and_what_is_gone_there_is_not_gone_on_from(
    toy, store, url, latents
):
    how = {"output_dir": url, "rolling_state_steps": 1} | CONSTANT
    toy(max_train_steps=3, listen=stop_after(2), **how)
    before = names(store, url)
    for more in ({"learning_rate": 1e-4}, {"overwrite": True}):
        refused = toy(max_train_steps=3, **(how | more))
        assert isinstance(refused.error, UserError)
        assert "another run of this name" in str(refused.error)
    assert {name: before[name] for name in before if "/states/" in name}.items() <= names(
        store, url
    ).items()
    store.store.clear()
    anew = toy(max_train_steps=2, **how)
    assert sorted(anew.losses) == [1, 2]
    assert "is of another run than" in str(messages(anew, "moved"))


def test_older_states_that_cannot_be_listed_end_no_training(store, url, tmp_path, monkeypatch):
    said = []
    run = RunDir.of(tmp_path, "toy")
    outputs = StoredOutputs(url=url, folder=tmp_path, run=run, emit=said.append)

    def find(self, *arguments, **named):
        raise OSError("the line broke")

    monkeypatch.setattr(type(store), "find", find)
    outputs.drop_rolling_states(5)
    assert "could not be removed: tried 4 times: OSError: the line broke" in said[-1].message


def test_what_cannot_go_to_a_store_is_refused(toy, store, url):
    hub = toy(output_dir=url, huggingface_repo_id="me/cats")
    assert "not sent to a Hugging Face repository too" in str(hub.error)
    web = toy(output_dir="https://host/models")
    assert "output_dir cannot be on a web server" in str(web.error)
    assert not [one for one in web.events if isinstance(one, Notice)]
