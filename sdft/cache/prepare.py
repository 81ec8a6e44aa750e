"""What a thread does with one placement before the VAE sees it.

In: a placement, the store. Out: a Prepared: its keys, and the pixels that have to be encoded or
the old latents that are taken over. Nothing outside is changed, so any number of threads may work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdft.cache.digests import FileDigests, FileVersion, KnownFile, read_with_digest
from sdft.cache.keys import LatentRecipe, geometry
from sdft.cache.latent_keys import KeyTable, LatentKeys
from sdft.cache.npz import npz_names, read_npz
from sdft.cache.pipeline import Picture
from sdft.cache.store import TensorStore
from sdft.dataset.objects import notes_of
from sdft.dataset.pixels import decode_rgb, fit, other_size
from sdft.dataset.records import Item, Placement
from sdft.dataset.tables import PlacementTable
from sdft.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentRules:
    """What a subset asks of its latents."""

    flip: bool = False
    """The mirrored picture is encoded as well."""
    interpolation: str | None = None
    """A forced way of resizing; None takes area when shrinking, else Lanczos."""


_NO_KEYS = LatentKeys()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """What was found out about one placement."""

    number: int
    """Of the placement in the plan."""
    keys: LatentKeys = _NO_KEYS
    pictures: tuple[Picture, ...] = ()
    """What has to be encoded."""
    old_latents: tuple[tuple[str, np.ndarray], ...] = ()
    """Key and values that are taken over from files of sd-scripts."""
    files: tuple[KnownFile, ...] = ()
    """What was read, to be remembered."""
    notes: tuple[str, ...] = ()
    """What a person should know."""
    problem: str = ""
    """Why the picture cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparer:
    """Reads and decodes the placements of one plan."""

    placements: Sequence[Placement]
    store: TensorStore
    recipe: LatentRecipe
    rules: Mapping[tuple[int, int], LatentRules]
    takes_npz: bool
    """Whether latents that sd-scripts left beside a picture are taken in its place."""

    def rules_of(self, number: int) -> LatentRules:
        return rules_of(self.placements[number], self.rules)

    def known_keys(self, digests: FileDigests) -> KeyTable:
        """Return each placement's keys as far as they follow from remembered digests."""
        # Column by column: records of a million placements take longer than all the rest.
        table = PlacementTable.of(self.placements)
        items, numbers = table.items, table.numbers_N
        found = digests.remembered_of(
            table.texts(items.paths),
            items.file_bytes_N[numbers].tolist(),
            items.mtimes_ns_N[numbers].tolist(),
        )
        keys = KeyTable.empty(len(table))
        is_known_N = np.array([digest is not None for digest in found], dtype=bool)
        places_N2 = table.item_places
        for place in table.distinct_places:
            rows_M = np.flatnonzero(is_known_N & (places_N2 == place).all(axis=1))
            image_digests = [digest for row in rows_M.tolist() if (digest := found[row])]
            rules = self.rules.get(place, _DEFAULT_RULES)
            for column, flip in ((keys.plain, False), (keys.flipped, True))[: 1 + rules.flip]:
                shapes = _geometries(table, rows_M, flip=flip, interpolation=rules.interpolation)
                column.put_joined(rows_M, self.recipe.joined_keys(image_digests, shapes))
        if self.takes_npz:
            for number in range(len(table)):
                old = self._known_npz_keys(number, digests)
                if old is not None:
                    keys.put(number, old)
        return keys

    def prepare(self, number: int) -> Prepared:
        """Read one placement's files; never raises for what is wrong with them."""
        notes: list[str] = []
        try:
            taken = self._from_npz(number, notes) if self.takes_npz else None
            return taken or self._from_picture(number, notes)
        except FileNotFoundError:
            return Prepared(number=number, problem="it vanished after it was indexed")
        except OSError as error:
            return Prepared(number=number, problem=f"cannot be read: {error.strerror or error}")
        except DataError as error:
            reason = "; ".join(problem.what for problem in error.problems)
            return Prepared(number=number, problem=reason)

    def keys_of(self, number: int, digest: str) -> LatentKeys:
        """Return the keys of a placement whose picture has this digest."""
        placement = self.placements[number]
        return self._keys(digest, placement.resized, placement.crop, self.rules_of(number))

    def _keys(
        self, digest: str, resized: Sequence[int], crop: Sequence[int], rules: LatentRules
    ) -> LatentKeys:
        def key(flip: bool) -> str:
            return self.recipe.key(
                image_digest=digest,
                resized=resized,
                crop=crop,
                flip=flip,
                interpolation=rules.interpolation,
            )

        return LatentKeys(plain=key(False), flipped=key(True) if rules.flip else None)

    def _from_picture(self, number: int, notes: list[str]) -> Prepared:
        item = self.placements[number].item
        file = read_with_digest(item.path)
        is_same_file = file.known.version == version_of(item)
        if not is_same_file:
            notes.append(f"{item.path} changed after it was indexed; it is used as it is now")
        notes += notes_of(item.path)
        keys = self.keys_of(number, file.known.digest)
        absent = absent_keys(self.store, keys.present)
        pictures: tuple[Picture, ...] = ()
        if absent:
            pictures = self._decode(number, file.content, keys, absent, is_same_file)
        return Prepared(
            number=number,
            keys=keys,
            pictures=pictures,
            files=(file.known,),
            notes=tuple(notes),
        )

    def _decode(
        self,
        number: int,
        content: bytes,
        keys: LatentKeys,
        absent: set[str],
        is_same_file: bool,
    ) -> tuple[Picture, ...]:
        placement = self.placements[number]
        rgb_HWC = decode_rgb(content)
        height, width = rgb_HWC.shape[:2]
        if (width, height) != placement.item.size:
            raise DataError(
                other_size(placement.item.size, (width, height), is_same_file=is_same_file)
            )
        interpolation = self.rules_of(number).interpolation
        fitted_HWC = fit(rgb_HWC, placement.resized, placement.crop, interpolation)
        return tuple(
            Picture(number=number, key=key, path=placement.item.path, rgb_HWC=view_HWC)
            for key, view_HWC in ((keys.plain, fitted_HWC), (keys.flipped, fitted_HWC[:, ::-1]))
            if key is not None and key in absent
        )

    def _from_npz(self, number: int, notes: list[str]) -> Prepared | None:
        """Return the latents that lie beside a picture, or None where not all are there and fit."""
        placement = self.placements[number]
        found = []
        for flip in self._flips(number):
            path = self._npz_path(number, flip=flip)
            if path is None:
                return None
            try:
                size = placement.item.size
                found.append(read_npz(path, bucket=placement.bucket, size=size, flip=flip))
            except DataError as error:
                reason = "; ".join(problem.what for problem in error.problems)
                notes.append(f"{path} is not used: {reason}")
                return None
        keys = self._npz_keys(number, [old.known.digest for old in found])
        absent = absent_keys(self.store, keys.present)
        return Prepared(
            number=number,
            keys=keys,
            old_latents=tuple(
                (key, old.latents_Chw)
                for key, old in zip(keys.present, found, strict=True)
                if key in absent
            ),
            files=tuple({old.known.version.path: old.known for old in found}.values()),
            notes=tuple(notes),
        )

    def _known_npz_keys(self, number: int, digests: FileDigests) -> LatentKeys | None:
        versions = []
        for flip in self._flips(number):
            path = self._npz_path(number, flip=flip)
            if path is None:
                return None
            versions.append(FileVersion.of(path))
        known = digests.remembered(versions)
        keys = self._npz_keys(number, [digest for digest in known if digest is not None])
        # What is not in the store was refused before, or never read.
        fits = None not in known and not absent_keys(self.store, keys.present)
        return keys if fits else None

    def _npz_keys(self, number: int, digests: Sequence[str]) -> LatentKeys:
        bucket = self.placements[number].bucket
        keys = [
            self.recipe.npz_key(npz_digest=digest, bucket=bucket, flip=flip)
            for flip, digest in zip(self._flips(number), digests, strict=False)
        ]
        return LatentKeys(plain=keys[0] if keys else None, flipped=keys[1] if keys[1:] else None)

    def _npz_path(self, number: int, *, flip: bool) -> Path | None:
        item = self.placements[number].item
        names = npz_names(item.path, item.size, flip=flip)
        return next((path for path in names if path.is_file()), None)

    def _flips(self, number: int) -> tuple[bool, ...]:
        return (False, True) if self.rules_of(number).flip else (False,)


def _geometries(
    table: PlacementTable, rows_M: np.ndarray, *, flip: bool, interpolation: str | None
) -> list[str]:
    """Return what is done with the pixels of some placements, as it stands in their keys."""
    numbers = zip(
        *table.resized_N2[rows_M].T.tolist(), *table.crops_N4[rows_M].T.tolist(), strict=True
    )
    made: dict[tuple[int, ...], str] = {}
    shapes = []
    for one in numbers:
        shape = made.get(one)
        if shape is None:
            shape = made[one] = geometry(
                resized=one[:2], crop=one[2:], flip=flip, interpolation=interpolation
            )
        shapes.append(shape)
    return shapes


def version_of(item: Item) -> FileVersion:
    """Return the state of the file that the index saw."""
    return FileVersion(path=item.path, size_bytes=item.file_bytes, mtime_ns=item.mtime_ns)


def rules_of(placement: Placement, rules: Mapping[tuple[int, int], LatentRules]) -> LatentRules:
    """Return what a placement's subset asks for."""
    return rules.get((placement.item.dataset, placement.item.subset), _DEFAULT_RULES)


_DEFAULT_RULES = LatentRules()


def absent_keys(store: TensorStore, keys: Sequence[str]) -> set[str]:
    """Return the keys that the store does not hold."""
    held = store.has(keys)
    return {key for key, is_held in zip(keys, held, strict=True) if not is_held}
