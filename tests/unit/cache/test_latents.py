"""Each picture is encoded once, and nothing stale or broken gets by unseen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdft.cache.digests import FileDigests, KnownFile
from sdft.cache.keys import LatentRecipe
from sdft.cache.latents import LatentCacheResult, LatentRules, cache_latents, foreseen_bytes
from sdft.cache.prepare import version_of
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.dataset.records import BucketPlan
from sdft.errors import DataError
from sdft.events import Event, ItemRejected, Notice, StageFinished, StageStarted
from tests.unit.cache.pictures import CellMeans, placement, plan_of, save_picture

RECIPE = LatentRecipe(vae_digest="vae", vae_dtype="fp32", kind="moments", dtype="fp32")
SIZES = [(64, 64), (48, 96), (70, 50), (64, 64), (96, 48), (64, 64)]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Return pictures of several sizes that look an hour old."""
    made = []
    for number, size in enumerate(SIZES):
        path = tmp_path / "images" / f"{number}.png"
        save_picture(path, size, seed=number)
        hour_ago_ns = time.time_ns() - 3600 * 10**9
        os.utime(path, ns=(hour_ago_ns, hour_ago_ns))
        made.append(path)
    return made


def encode(plan: BucketPlan, cache: Path, **changes: Any) -> tuple[LatentCacheResult, CellMeans]:
    encoder = CellMeans()
    with FileDigests(cache / "digests.sqlite") as digests:
        arguments: dict[str, Any] = {
            "store": TensorStore(cache),
            "digests": digests,
            "recipe": RECIPE,
            "rules": {},
            "load_encoder": lambda: encoder,
            "max_workers": 2,
        }
        return cache_latents(plan, **(arguments | changes)), encoder


def stored(cache: Path, key: str | None) -> np.ndarray:
    assert key is not None
    return TensorStore(cache).read(key)


def test_every_picture_is_encoded_once_and_never_again(paths: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, encoder = encode(plan_of(paths), cache)
    assert (first.images, first.encoded, first.reused, first.rejected) == (6, 6, 0, ())
    assert encoder.num_pictures == 6
    shapes = [stored(cache, keys.plain).shape for keys in first.keys]
    assert shapes == [(8, h // 8, w // 8) for w, h in SIZES]

    def must_not_load() -> CellMeans:
        raise AssertionError("the VAE is loaded although nothing is missing")

    second, _ = encode(plan_of(paths), cache, load_encoder=must_not_load)
    assert (second.encoded, second.reused) == (0, 6)
    assert second.keys == first.keys


def test_the_latents_are_those_of_the_picture(paths: list[Path], tmp_path: Path) -> None:
    result, _ = encode(plan_of(paths[:1]), tmp_path / "cache")
    from PIL import Image

    pixels = np.asarray(Image.open(paths[0])).reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)) / 255
    kept = stored(tmp_path / "cache", result.keys[0].plain)
    np.testing.assert_allclose(kept[:3], pixels.transpose(2, 0, 1), rtol=1e-6)
    np.testing.assert_array_equal(kept[4:], np.full((4, 8, 8), -2.0, np.float32))


def test_one_edited_picture_costs_one_encode(paths: list[Path], tmp_path: Path) -> None:
    encode(plan_of(paths), tmp_path / "cache")
    save_picture(paths[2], SIZES[2], seed=99)
    result, encoder = encode(plan_of(paths), tmp_path / "cache")
    assert (result.encoded, result.reused, encoder.num_pictures) == (1, 5, 1)


def test_another_vae_costs_all_and_a_renamed_file_none(paths: list[Path], tmp_path: Path) -> None:
    encode(plan_of(paths), tmp_path / "cache")
    other, _ = encode(plan_of(paths), tmp_path / "cache", recipe=replace(RECIPE, vae_digest="b"))
    assert other.encoded == 6
    moved = [path.rename(path.with_name(f"new {path.name}")) for path in paths]
    result, encoder = encode(plan_of(moved), tmp_path / "cache")
    assert (result.encoded, result.reused, encoder.num_pictures) == (0, 6, 0)


def test_mirrored_latents_have_their_own_key(paths: list[Path], tmp_path: Path) -> None:
    rules = {(0, 0): LatentRules(flip=True)}
    cache = tmp_path / "cache"
    plain, _ = encode(plan_of(paths), cache)
    both, encoder = encode(plan_of(paths), cache, rules=rules)
    assert encoder.num_pictures == 6
    assert [keys.plain for keys in both.keys] == [keys.plain for keys in plain.keys]
    for keys in both.keys:
        mirrored = stored(cache, keys.plain)[:, :, ::-1]
        np.testing.assert_allclose(stored(cache, keys.flipped), mirrored, rtol=1e-6)
    assert all(keys.flipped is None for keys in plain.keys)


def test_equal_pictures_are_encoded_once(paths: list[Path], tmp_path: Path) -> None:
    twin = paths[0].with_name("twin.png")
    twin.write_bytes(paths[0].read_bytes())
    result, encoder = encode(plan_of([*paths, twin]), tmp_path / "cache")
    assert (result.images, result.encoded, result.reused, encoder.num_pictures) == (7, 6, 1, 6)
    assert result.keys[6] == result.keys[0]


def test_one_picture_at_two_resolutions_is_encoded_for_both(
    paths: list[Path], tmp_path: Path
) -> None:
    plan = BucketPlan(
        placements=(placement(paths[0], bucket=(64, 64)), placement(paths[0], bucket=(128, 128)))
    )
    result, _ = encode(plan, tmp_path / "cache")
    assert stored(tmp_path / "cache", result.keys[0].plain).shape == (8, 8, 8)
    assert stored(tmp_path / "cache", result.keys[1].plain).shape == (8, 16, 16)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def replace_by_text(path: Path) -> None:
    path.write_text("not a picture")


def resize(path: Path) -> None:
    save_picture(path, (32, 32), seed=1)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (truncate, "decode"),
        (replace_by_text, ""),
        (Path.unlink, "vanished"),
        (resize, "was 70 x 50 px when it was indexed"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named_and_the_others_go_on(
    paths: list[Path], tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    plan = plan_of(paths)
    harm(paths[2])
    events: list[Event] = []
    result, _ = encode(plan, tmp_path / "cache", emit=events.append)
    assert (result.encoded, result.reused, len(result.rejected)) == (5, 0, 1)
    assert result.rejected[0].path == paths[2]
    assert reason in result.rejected[0].reason
    assert result.keys[2].plain is None
    named = [event for event in events if isinstance(event, ItemRejected)]
    assert [event.path for event in named] == [str(paths[2])]


def test_a_size_that_the_metadata_gave_wrongly_is_named(paths: list[Path], tmp_path: Path) -> None:
    placements = list(plan_of(paths).placements)
    placements[2] = replace(placements[2], item=replace(placements[2].item, size=(50, 70)))
    result, _ = encode(BucketPlan(placements=tuple(placements)), tmp_path / "cache")
    assert [one.reason for one in result.rejected] == [
        "it is 70 x 50 px, and the metadata file says 50 x 70 px; mend image_size there"
    ]


def test_too_many_unusable_pictures_stop_the_pass_but_keep_what_is_done(
    paths: list[Path], tmp_path: Path
) -> None:
    plan = plan_of(paths)
    for path in paths[3:]:
        truncate(path)
    with pytest.raises(DataError, match="the limit is 1"):
        encode(plan, tmp_path / "cache", max_rejected=1, max_workers=1)
    result, _ = encode(plan, tmp_path / "cache", max_rejected=3)
    assert len(result.rejected) == 3


def test_a_picture_that_changed_after_it_was_indexed_is_named_and_used_as_it_is_now(
    paths: list[Path], tmp_path: Path
) -> None:
    plan = plan_of(paths)
    save_picture(paths[2], SIZES[2], seed=99)
    events: list[Event] = []
    result, _ = encode(plan, tmp_path / "cache", emit=events.append)
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert len(notices) == 1
    assert str(paths[2]) in notices[0]
    fresh, _ = encode(plan_of(paths), tmp_path / "cache")
    assert (fresh.encoded, fresh.keys) == (0, result.keys)


def test_latents_that_are_not_finite_stop_with_cause_and_picture(
    paths: list[Path], tmp_path: Path
) -> None:
    class Overflowing(CellMeans):
        def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
            moments = super().submit(rgb_BHWC)()
            moments[:, 0, 0, 0] = np.nan
            return lambda: moments

    with pytest.raises(DataError, match=r"\.png: .*the toy overflows"):
        encode(plan_of(paths), tmp_path / "cache", load_encoder=Overflowing)
    assert len(TensorStore(tmp_path / "cache")) == 0


def test_values_too_large_for_half_precision_stop_too(paths: list[Path], tmp_path: Path) -> None:
    class Large(CellMeans):
        def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
            moments = super().submit(rgb_BHWC)() + 70000.0
            return lambda: moments

    plan = plan_of(paths[:1])
    with pytest.raises(DataError, match="not finite"):
        encode(plan, tmp_path / "a", load_encoder=Large, recipe=replace(RECIPE, dtype="fp16"))
    encode(plan, tmp_path / "b", load_encoder=Large, recipe=replace(RECIPE, dtype="bf16"))


def test_batches_are_full_and_of_one_size(paths: list[Path], tmp_path: Path) -> None:
    result, encoder = encode(plan_of(paths), tmp_path / "cache", vae_batch_size=2)
    assert result.encoded == 6
    assert set(encoder.batch_sizes) == {2}
    # Three of 64 x 64 px make two batches, and each of the three others one.
    assert len(encoder.batch_sizes) == 5


def test_the_three_kinds_keep_what_they_say(paths: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    kept = {}
    for kind in ("moments", "mean", "sample"):
        result, _ = encode(plan_of(paths[:1]), cache, recipe=replace(RECIPE, kind=kind))
        kept[kind] = stored(cache, result.keys[0].plain)
    np.testing.assert_array_equal(kept["mean"], kept["moments"][:4])
    deviation = kept["sample"] - kept["mean"]
    assert deviation.shape == (4, 8, 8)
    # 256 draws of a normal variable whose standard deviation is exp(-1).
    assert abs(float(deviation.std()) / np.exp(-1.0) - 1) < 0.2

    again, _ = encode(plan_of(paths[:1]), tmp_path / "b", recipe=replace(RECIPE, kind="sample"))
    np.testing.assert_array_equal(stored(tmp_path / "b", again.keys[0].plain), kept["sample"])


def test_the_size_on_the_disk_is_foreseen(paths: list[Path], tmp_path: Path) -> None:
    plan = plan_of(paths)
    rules = {(0, 0): LatentRules(flip=True)}
    recipe = replace(RECIPE, dtype="fp16")
    foreseen = foreseen_bytes(plan.placements, recipe, rules)
    result, _ = encode(plan, tmp_path / "cache", rules=rules, recipe=recipe)
    keys = [key for keys in result.keys for key in (keys.plain, keys.flipped)]
    assert foreseen == sum(stored(tmp_path / "cache", key).nbytes for key in keys)


def test_the_stage_says_when_it_begins_and_ends(paths: list[Path], tmp_path: Path) -> None:
    events: list[Event] = []
    encode(plan_of(paths), tmp_path / "cache", emit=events.append)
    assert events[0] == StageStarted(stage="latents", total=6, unit="image")
    assert isinstance(events[-1], StageFinished)
    assert events[-1].done == 6
    events.clear()
    encode(plan_of(paths), tmp_path / "cache", emit=events.append)
    assert not events


def test_a_damaged_shard_is_named_and_its_pictures_are_encoded_again(
    paths: list[Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    encode(plan_of(paths[:3]), cache)
    encode(plan_of(paths), cache)
    largest = max((cache / "shards").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    with largest.open("rb+") as file:
        file.truncate(100)
    events: list[Event] = []
    result, encoder = encode(plan_of(paths), cache, emit=events.append)
    assert (result.encoded, result.reused, encoder.num_pictures) == (3, 3, 3)
    assert any(isinstance(one, Notice) and largest.name in one.message for one in events)


def test_one_edited_picture_among_ten_thousand_costs_one_encode(
    paths: list[Path], tmp_path: Path
) -> None:
    original = placement(paths[0])
    plan = BucketPlan(
        placements=(
            original,
            *(
                replace(original, item=replace(original.item, path=tmp_path / f"{number}.png"))
                for number in range(9_999)
            ),
        )
    )
    # The others' files do not exist: a start that read one of them would reject it.
    cache = tmp_path / "cache"
    with (
        FileDigests(cache / "digests.sqlite") as digests,
        StoreWriter(TensorStore(cache)) as writer,
    ):
        for number, one in enumerate(plan.placements):
            digest = f"{number:032x}"
            digests.remember(KnownFile(version=version_of(one.item), digest=digest))
            key = RECIPE.key(
                image_digest=digest,
                resized=one.resized,
                crop=one.crop,
                flip=False,
                interpolation=None,
            )
            writer.add(key, np.zeros((8, 1, 1), np.float32), "fp32")
    unchanged, _ = encode(plan, cache)
    assert (unchanged.encoded, unchanged.reused) == (0, 10_000)

    save_picture(paths[0], SIZES[0], seed=99)
    edited = BucketPlan(placements=(placement(paths[0]), *plan.placements[1:]))
    result, encoder = encode(edited, cache)
    assert (result.encoded, result.reused, encoder.num_pictures) == (1, 9_999, 1)


def test_an_interrupted_pass_goes_on_and_ends_with_the_same_bits(
    paths: list[Path], tmp_path: Path
) -> None:
    class Interrupted(CellMeans):
        def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
            if self.num_pictures == 3:
                raise KeyboardInterrupt
            return super().submit(rgb_BHWC)

    whole, _ = encode(plan_of(paths), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        encode(plan_of(paths), tmp_path / "parts", load_encoder=Interrupted)
    result, encoder = encode(plan_of(paths), tmp_path / "parts")
    # The picture that was in work when the key was pressed is encoded again.
    assert (result.reused, encoder.num_pictures) == (2, 4)
    assert result.keys == whole.keys
    for keys in whole.keys:
        expected = stored(tmp_path / "whole", keys.plain)
        np.testing.assert_array_equal(stored(tmp_path / "parts", keys.plain), expected)
