"""Latents of every era of sd-scripts are taken over where they fit, and refused with a reason."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdft.cache.digests import FileDigests
from sdft.cache.keys import LatentRecipe
from sdft.cache.latents import LatentCacheResult, LatentRules, cache_latents
from sdft.cache.npz import npz_names, read_npz
from sdft.cache.store import TensorStore
from sdft.errors import DataError
from sdft.events import Event, Notice
from tests.unit.cache.pictures import CellMeans, plan_of, save_picture

SIZE = (64, 48)
SHAPE = (4, 6, 8)
RECIPE = LatentRecipe(vae_digest="vae", vae_dtype="fp32", kind="sample", dtype="fp32")


def latents(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def beside(**more: Any) -> dict[str, Any]:
    """Return what sd-scripts writes next to the latents, from mid-2023 on."""
    return {"original_size": np.array(SIZE), "crop_ltrb": np.array([0.0, 0.0, 64.0, 48.0]), **more}


ERAS: dict[str, dict[str, dict[str, Any]]] = {
    "2022": {"a.npz": {"arr_0": latents(0)}, "a_flip.npz": {"arr_0": latents(1)}},
    "mid-2023": {
        "a.npz": {
            "latents": latents(0),
            "original_size": np.array(SIZE),
            "crop_left_top": np.array([0, 0]),
        },
        "a_flip.npz": {
            "latents": latents(1),
            "original_size": np.array(SIZE),
            "crop_left_top": np.array([0, 0]),
        },
    },
    "until v0.9.1": {
        "a.npz": beside(
            latents=latents(0),
            latents_flipped=latents(1),
            alpha_mask=np.ones((48, 64), np.float32),
        )
    },
    "current": {
        "a_0064x0048_sd.npz": beside(latents=latents(0), latents_flipped=latents(1)),
    },
    "current, several resolutions": {
        "a_0064x0048_sd.npz": beside(
            **{
                "latents_6x8": latents(0),
                "latents_flipped_6x8": latents(1),
                "latents_12x16": np.zeros((4, 12, 16), np.float32),
            }
        ),
    },
}


def write(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in files.items():
        np.savez(folder / name, **arrays)
    save_picture(folder / "a.png", SIZE, seed=0)
    return folder / "a.png"


def encode(
    picture: Path, cache: Path, *, flip: bool = False, **changes: Any
) -> tuple[LatentCacheResult, list[str], CellMeans]:
    events: list[Event] = []
    encoder = CellMeans()
    with FileDigests(cache / "digests.sqlite") as digests:
        result = cache_latents(
            plan_of([picture]),
            store=TensorStore(cache),
            digests=digests,
            rules={(0, 0): LatentRules(flip=flip)},
            load_encoder=lambda: encoder,
            emit=events.append,
            takes_npz=True,
            **({"recipe": RECIPE} | changes),
        )
    return result, [event.message for event in events if isinstance(event, Notice)], encoder


@pytest.mark.parametrize("era", list(ERAS))
@pytest.mark.parametrize("flip", [False, True])
def test_latents_of_each_era_are_taken_over(tmp_path: Path, era: str, flip: bool) -> None:
    picture = write(tmp_path / "images", ERAS[era])
    result, notices, encoder = encode(picture, tmp_path / "cache", flip=flip)
    assert (result.encoded, result.reused, encoder.num_pictures, notices) == (0, 1, 0, [])
    store = TensorStore(tmp_path / "cache")
    np.testing.assert_array_equal(store.read(result.keys[0].plain or ""), latents(0))
    if flip:
        np.testing.assert_array_equal(store.read(result.keys[0].flipped or ""), latents(1))
    again, _, _ = encode(picture, tmp_path / "cache", flip=flip)
    assert again.keys == result.keys


def test_an_exif_rotated_picture_is_found_under_its_stored_size() -> None:
    names = [path.name for path in npz_names(Path("a.png"), (48, 64), flip=False)]
    assert names == ["a.npz", "a_0048x0064_sd.npz", "a_0064x0048_sd.npz"]


def test_latents_that_could_be_of_another_vae_are_left_alone(tmp_path: Path) -> None:
    picture = write(tmp_path, {"a_0064x0048_sdxl.npz": beside(latents=latents(0))})
    assert encode(picture, tmp_path / "cache")[0].encoded == 1


def written(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


def cut_off(path: Path) -> None:
    np.savez(path, arr_0=latents(0))
    path.write_bytes(path.read_bytes()[:300])


def altered(path: Path) -> None:
    np.savez_compressed(path, arr_0=latents(0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


class Explosive:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("this must never run",)


def pickled(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", pickle.dumps(Explosive()))


def object_array(path: Path) -> None:
    np.savez(path, arr_0=np.array([Explosive()] * 4, dtype=object))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: written(path, arr_0=latents(0)[:, :, :7]), "4 x 6 x 7"),
        (lambda path: written(path, arr_0=np.zeros((16, 6, 8), np.float32)), "16 x 6 x 8"),
        (lambda path: written(path, arr_0=np.full(SHAPE, np.nan, np.float32)), "not finite"),
        (lambda path: written(path, arr_0=np.zeros(SHAPE, np.int64)), "unknown kind"),
        (lambda path: written(path, hidden_state1=latents(0)), "no latents"),
        (
            lambda path: written(path, latents=latents(0), original_size=np.array([640, 480])),
            "640 x 480 px",
        ),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (cut_off, "cannot be read"),
        (altered, "cannot be read"),
        (pickled, "cannot be read"),
        (object_array, ""),
    ],
)
def test_what_does_not_fit_is_named_and_encoded_anew(
    tmp_path: Path, make: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = write(tmp_path, {})
    make(tmp_path / "a.npz")
    result, notices, _ = encode(picture, tmp_path / "cache")
    assert (result.encoded, result.rejected) == (1, ())
    assert len(notices) == 1
    assert str(tmp_path / "a.npz") in notices[0]
    assert reason in notices[0]
    assert capsys.readouterr().out == ""
    second, _, _ = encode(picture, tmp_path / "cache")
    assert (second.encoded, second.reused) == (0, 1)


def test_moments_cannot_come_from_a_single_draw(tmp_path: Path) -> None:
    picture = write(tmp_path, ERAS["2022"])
    recipe = LatentRecipe(vae_digest="vae", vae_dtype="fp32", kind="moments", dtype="fp32")
    assert encode(picture, tmp_path / "cache", recipe=recipe)[0].encoded == 1


def test_a_picture_without_mirrored_latents_is_encoded_anew_when_it_is_to_be_mirrored(
    tmp_path: Path,
) -> None:
    picture = write(tmp_path, {"a.npz": {"latents": latents(0)}})
    result, notices, encoder = encode(picture, tmp_path / "cache", flip=True)
    assert (result.encoded, encoder.num_pictures) == (1, 2)
    assert "no latents_flipped" in notices[0]


def test_a_changed_file_is_taken_over_again(tmp_path: Path) -> None:
    picture = write(tmp_path, ERAS["2022"])
    encode(picture, tmp_path / "cache")
    np.savez(tmp_path / "a.npz", arr_0=latents(5))
    result, _, _ = encode(picture, tmp_path / "cache")
    store = TensorStore(tmp_path / "cache")
    np.testing.assert_array_equal(store.read(result.keys[0].plain or ""), latents(5))


def test_a_file_that_is_not_there_is_no_data_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "none.npz", bucket=SIZE, size=SIZE, flip=False)
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(DataError):
        read_npz(tmp_path / "a.npz", bucket=SIZE, size=SIZE, flip=False)
