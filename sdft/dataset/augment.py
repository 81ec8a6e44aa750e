"""Makes the pixels of one use of an image: decoded, resized, cut and changed by chance.

In: a PictureJob and the use's address. Out: a Drawn. The randomness is the use's own, so it is the
same in whichever process it is made. No torch here: worker processes run this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sdft.dataset.colours import change_colours
from sdft.dataset.crops import centre_boxes, face_geometry, face_of, mirrored, random_box
from sdft.dataset.objects import notes_of
from sdft.dataset.pixels import decode_rgb, fit, other_size
from sdft.dataset.records import Box, BucketPlan, Placement, Size
from sdft.dataset.tables import PlacementTable
from sdft.errors import DataError, Problem
from sdft.streams import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRules:
    """What a subset asks of its pictures on each use."""

    interpolation: str | None = None
    flip_aug: bool = False
    color_aug: bool = False
    random_crop: bool = False
    face_crop_aug_range: tuple[float, float] | None = None

    @property
    def change_each_use(self) -> bool:
        """Whether latents cannot be kept; a mirrored image has only two forms, which can."""
        return self.color_aug or self.random_crop or self.face_crop_aug_range is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureJob:
    """One image and where it goes; small, since it is sent to a worker process."""

    path: Path
    size: Size
    file_bytes: int
    mtime_ns: int
    resized: Size
    crop: Box
    rules: PictureRules

    @classmethod
    def of(cls, placement: Placement, rules: PictureRules) -> PictureJob:
        item = placement.item
        return cls(
            path=item.path,
            size=item.size,
            file_bytes=item.file_bytes,
            mtime_ns=item.mtime_ns,
            resized=placement.resized,
            crop=placement.crop,
            rules=rules,
        )

    @property
    def bucket(self) -> Size:
        left, top, right, bottom = self.crop
        return right - left, bottom - top


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """The pixels of one use, or why there are none."""

    rgb_HWC: np.ndarray | None
    """uint8."""
    problem: str = ""
    has_changed: bool = False
    """The file is not the one that was indexed."""
    notes: tuple[str, ...] = ()
    """What should be said of reading it."""


def draw_picture(job: PictureJob, address: Address) -> Drawn:
    """Return the pixels; never raises for what is wrong with the file."""
    try:
        status = job.path.stat()
        has_changed = (status.st_size, status.st_mtime_ns) != (job.file_bytes, job.mtime_ns)
        rgb_HWC = decode_rgb(job.path)
    except FileNotFoundError:
        return Drawn(rgb_HWC=None, problem="it vanished after it was indexed")
    except OSError as error:
        return Drawn(rgb_HWC=None, problem=f"cannot be read: {error.strerror or error}")
    except DataError as error:
        return Drawn(rgb_HWC=None, problem=error.problems[0].what)
    height, width = rgb_HWC.shape[:2]
    if (width, height) != job.size:
        problem = other_size(job.size, (width, height), is_same_file=not has_changed)
        return Drawn(rgb_HWC=None, problem=problem, has_changed=has_changed)
    resized, crop = geometry(job, address)
    pixels_HWC = fit(rgb_HWC, resized, crop, job.rules.interpolation)
    if job.rules.color_aug:
        pixels_HWC = change_colours(pixels_HWC, address.stream("colour"))
    if job.rules.flip_aug and is_mirrored(address):
        pixels_HWC = mirrored(pixels_HWC)
    return Drawn(rgb_HWC=pixels_HWC, has_changed=has_changed, notes=notes_of(job.path))


def geometry(job: PictureJob, address: Address) -> tuple[Size, Box]:
    """Return how the image is resized and cut in this use."""
    rules = job.rules
    face = face_of(job.path.stem) if rules.face_crop_aug_range else None
    if face is not None and rules.face_crop_aug_range is not None:
        return face_geometry(
            job.size,
            job.bucket,
            face,
            rules.face_crop_aug_range,
            roams=rules.random_crop,
            stream=address.stream("crop"),
        )
    if rules.random_crop:
        return job.resized, random_box(job.resized, job.bucket, address.stream("crop"))
    return job.resized, job.crop


def is_mirrored(address: Address) -> bool:
    """Tell whether this use is one of the half that is mirrored under `flip_aug`."""
    return address.stream("flip").random() < 0.5


def crop_unresized(plan: BucketPlan, places: Collection[tuple[int, int]]) -> BucketPlan:
    """Return the plan with images of some (dataset, subset) left at their size where they cover
    their bucket; smaller ones are enlarged as planned."""
    if not places:
        return plan
    table = PlacementTable.of(plan.placements)
    sizes_N2 = table.items.sizes_N2[table.numbers_N]
    keys_N = table.item_places @ np.array([_PLACES, 1])
    wanted_N = np.isin(keys_N, [dataset * _PLACES + subset for dataset, subset in places])
    wanted_N &= (sizes_N2 >= table.buckets_N2).all(axis=1)
    resized_N2 = np.where(wanted_N[:, None], sizes_N2, table.resized_N2)
    crops_N4 = centre_boxes(resized_N2, table.buckets_N2)
    return BucketPlan(placements=replace(table, resized_N2=resized_N2, crops_N4=crops_N4))


_PLACES = 1 << 20
"""More subsets than any dataset has."""


def faceless(plan: BucketPlan, rules: Mapping[tuple[int, int], PictureRules]) -> Iterator[Problem]:
    """Say how many images were to be cut around a face that their names do not tell of."""
    if not any(one.face_crop_aug_range for one in rules.values()):
        return
    missing = [
        placement.item.path.name
        for placement in plan.placements
        if rules[placement.item.dataset, placement.item.subset].face_crop_aug_range
        and face_of(placement.item.path.stem) is None
    ]
    if missing:
        yield Problem(
            f"the names of {len(missing)} images tell of no face, such as {missing[0]}; they are"
            " cut as without face_crop_aug_range",
            fix="end a name in _cx_cy_w_h: the face's centre and size in pixels",
        )
