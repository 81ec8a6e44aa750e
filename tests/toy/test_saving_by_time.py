"""Checkpoints by the clock."""

from sdft.events import CheckpointSaved


def test_a_checkpoint_is_saved_after_so_many_minutes_with_a_state_where_asked(toy, tmp_path):
    run = toy(max_train_steps=3, save_every_n_minutes=1e-6, save_state=True)
    assert run.error is None
    names = [path.name for path in sorted((tmp_path / "out").glob("*.safetensors"))]
    assert names == [
        "toy-step00000001.safetensors",
        "toy-step00000002.safetensors",
        "toy.safetensors",
    ]
    states = {path.name for path in (run.result.run / "states").iterdir()}
    assert {"step00000001", "step00000002"} <= states


def test_no_time_is_up_in_a_short_run(toy):
    run = toy(max_train_steps=2, save_every_n_minutes=60)
    assert len(run.of(CheckpointSaved)) == 1
