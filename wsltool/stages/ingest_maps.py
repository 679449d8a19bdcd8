"""``ingest maps``: maps of another tool, one file an image, become a maps store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from wsltool.datasets.classes import ClassList
from wsltool.datasets.image_names import ImageNames
from wsltool.datasets.map_files import MapHeader, read_map_header, read_maps
from wsltool.datasets.map_listing import (
    LISTING,
    ListedMaps,
    MapListing,
    read_class_scores,
    read_map_listing,
)
from wsltool.errors import BadImageError, UsageError
from wsltool.stages.options import PathLike, RunOptions, Settings, check_choice
from wsltool.stages.plan import Job
from wsltool.stages.result_files import (
    FilesOfImages,
    class_list,
    files_of_images,
    image_names,
    listing_record,
    num_rows,
    open_images,
    result_job,
)
from wsltool.stages.run import Block, Rows, Tick, leave_out, run
from wsltool.stores.lineage import fingerprint_file
from wsltool.stores.store import Store

__all__ = ["ingest_maps"]

Array = np.ndarray[Any, Any]
MapDtype = Literal["auto", "float16", "float32", "float64"]
ScoreKind = Literal["unknown", "logit", "probability"]

_ENDING = ".npy"


def ingest_maps(
    folder: PathLike,
    *,
    images: PathLike,
    classes: str = "present",
    class_score: PathLike | None = None,
    score_kind: ScoreKind = "unknown",
    map_dtype: MapDtype = "auto",
    **options: Unpack[RunOptions],
) -> Path:
    """Read a folder of maps, one ``.npy`` file an image.

    Files hold real numbers of shape (H, W) or (S, H, W); sizes may differ from image to image.
    Nothing is ever unpickled. A map covers its whole image, unless a listing says otherwise.

    Parameters
    ----------
    folder : path
        Files named ``ID.npy``, with or without folders and the picture's own ending.
    images : path
        The ``images`` store that the maps are about; row n of the output is its image n.
    classes : str
        What the maps of a file are of: ``present``, the classes present in the image in rising
        order (one map: its only class); ``all``, every class; a class (id or name), the same
        in every image; or a JSON file that lists them, see the page of ``ingest``.
    class_score : path, optional
        Scores of all classes in all images: ``.npy`` (N, K) or CSV ``image,CLASS,CLASS,…``.
        Otherwise the score of a class is the maximum of its map, and −inf without one.
    score_kind : {"unknown", "logit", "probability"}
        What these scores are; a listing may say it.
    map_dtype : {"auto", "float16", "float32", "float64"}
        How maps are stored. ``auto``: float64 if a file holds numbers that float32 may not
        hold (float64, integers of more than 16 bits), else float32.
    **options
        See `wsltool.stages.options.RunOptions`.

    Returns
    -------
    Path
        The ``maps`` store (default ``FOLDER.maps.zarr`` beside the folder). Slots stand in
        falling score, equal ones in the order of the file.

    Raises
    ------
    DatasetError
        No file belongs to an image, or two belong to one; a listing or scores are malformed.
    BadImageError
        A file is missing or cannot be read, holds NaN, an infinity or what the dtype cannot
        hold, or another number of maps than classes; and ``on_bad`` is ``"stop"``.
    """
    settings = Settings.of(options)
    check_choice("--map-dtype", map_dtype, MapDtype)
    check_choice("--score-kind", score_kind, ScoreKind)
    place = Path(folder)
    scores = None if class_score is None else Path(class_score)
    with open_images(images, "ingest maps") as store:
        names, known = image_names(store), class_list(store)
        listing_file, listing, one_class = _class_rule(classes, place, names, known)
        aside = [path for path in (scores, listing_file) if path is not None]
        maker = _MapMaker(
            images=store,
            files=files_of_images(place, _ENDING, names, settings.report, aside),
            classes=classes,
            listing=listing,
            one_class=one_class,
            score_NK=None if scores is None else read_class_scores(scores, names, known),
            headers=[],
        )
        maker.look(num_rows(store, settings))
        job, settings = maker.job(settings, score_kind, map_dtype)
        for role, path in (("class_score", scores), ("classes", listing_file)):
            if path is not None:
                job.inputs[role] = fingerprint_file(path, job.output.parent)
        dtype = maker.dtype(map_dtype)

        def compute(blocks: list[Block], tick: Tick) -> Iterator[Rows]:
            for block in blocks:
                yield maker.block(block, settings, dtype)

        return run(job, compute, settings)


def _class_rule(
    classes: str, folder: Path, names: ImageNames, known: ClassList
) -> tuple[Path | None, MapListing | None, int | None]:
    """Return the listing and its file, or the one class, that ``--classes`` means."""
    listing = folder / LISTING
    if listing.is_file() and not classes.endswith(".json"):
        raise UsageError(
            f"{listing}: says what the maps in this folder are of, --classes says {classes}. Pass "
            f"--classes {listing}, or move it away."
        )
    if classes in ("present", "all"):
        return None, None, None
    path = Path(classes)
    if path.suffix == ".json":
        return path, read_map_listing(path, names, known), None
    try:
        return None, None, known.index(classes)
    except LookupError as error:
        raise UsageError(
            f"--classes must be present, all, a listing (.json) or a class, but {error.args[0]}."
        ) from error


@dataclass(frozen=True)
class _MapMaker:
    """What all blocks of one run share."""

    images: Store
    files: FilesOfImages
    classes: str
    listing: MapListing | None
    one_class: int | None
    score_NK: Array | None
    headers: list[MapHeader]

    def look(self, total: int) -> None:
        """Read the headers of the first `total` images; bad files are told row by row later."""
        for path in self.files.file_N[:total]:
            if path is not None:
                try:
                    self.headers.append(read_map_header(path))
                except BadImageError:
                    continue

    def dtype(self, map_dtype: str) -> type[np.floating[Any]]:
        """Return how maps are stored."""
        if map_dtype == "auto":
            map_dtype = "float64" if any(one.is_double for one in self.headers) else "float32"
        found: type[np.floating[Any]] = np.dtype(map_dtype).type
        return found

    @property
    def has_one_grid(self) -> bool:
        """Whether all maps have the same rows and columns."""
        return len({(one.num_rows, one.num_cols) for one in self.headers}) <= 1

    def job(self, settings: Settings, score_kind: str, map_dtype: str) -> tuple[Job, Settings]:
        """Return the job, and the settings with the output's name."""
        largest = max(
            (one.num_maps * one.num_rows * one.num_cols for one in self.headers), default=1
        )
        listed = self.listing.attributes if self.listing is not None else {}
        chosen = self.classes if self.classes in ("present", "all") else "given"
        attributes = {"classes": chosen, "score_kind": score_kind} | listed
        params = {"form": "maps", "classes": self.classes, "map_dtype": map_dtype}
        if self.listing is not None:
            params["classes"] = "listed"
        job, settings = result_job(
            settings,
            "maps",
            self.images,
            self.files.folder,
            params=params | {"score_kind": score_kind},
            attributes=attributes,
            row_bytes=8 * largest + 4 * self.images.shape("class_name")[0],
        )
        used = self.files.file_N[: job.num_rows]
        job.inputs["listing"] = listing_record(used, self.files.folder, job.output.parent)
        return job, settings

    def block(self, block: Block, settings: Settings, dtype: type[np.floating[Any]]) -> Rows:
        """Return the rows of a block."""
        rows = self.images.carried(block.start, block.stop)
        label_NK = self.images.rows("label", block.start, block.stop)
        size_N2 = rows["image_size"].astype(np.float32)
        rows["map_extent"] = np.concatenate([np.zeros_like(size_N2), size_N2], axis=1)
        rows["class_score"] = np.full(label_NK.shape, -np.inf, np.float32)
        found: list[_ImageMaps | None] = [None] * block.num_rows
        for n in np.flatnonzero(rows["image_status"] == 0).tolist():
            row = block.start + n
            try:
                one = found[n] = self._image(row, label_NK[n], dtype)
            except BadImageError as error:
                leave_out(self.images, settings, rows, row, n, error)
                continue
            rows["class_score"][n] = one.class_score_K
            if one.extent_xyxy is not None:
                rows["map_extent"][n] = one.extent_xyxy
        return rows | _stacked(found, dtype, has_one_grid=self.has_one_grid)

    def _image(self, row: int, label_K: Array, dtype: type[np.floating[Any]]) -> _ImageMaps:
        listed = self._listed(row, label_K)
        class_S = np.array(listed.class_index, np.int32)
        if not len(class_S) and self.files.file_N[row] is None:
            return self._no_maps(row, listed)
        path = self.files.file(row, _ENDING)
        values_SHW = read_maps(path)
        if len(values_SHW) != len(class_S):
            raise BadImageError(
                f"{path.name}: holds {len(values_SHW)} maps, but its image {self._wanted(class_S)}."
            )
        map_SHW = _converted(values_SHW, dtype, path.name)
        score_S, class_score_K = self._scores(row, values_SHW, listed, path.name)
        order_S = np.argsort(-score_S, kind="stable")
        extent = listed.extent_xyxy
        return _ImageMaps(
            map_SHW[order_S], class_S[order_S], score_S[order_S], class_score_K, extent
        )

    def _no_maps(self, row: int, listed: ListedMaps) -> _ImageMaps:
        """Return what an image has that shows none of the classes, and needs no file."""
        none_SHW = np.zeros((0, 1, 1))
        score_S, class_score_K = self._scores(row, none_SHW, listed, "")
        return _ImageMaps(none_SHW, np.zeros(0, np.int32), score_S, class_score_K, None)

    def _listed(self, row: int, label_K: Array) -> ListedMaps:
        """Return the classes of the maps of an image."""
        if self.listing is not None:
            listed = self.listing.of_row.get(row)
            if listed is None:
                raise BadImageError(f"--classes {self.classes} does not list its maps.")
            return listed
        if self.one_class is not None:
            return ListedMaps((self.one_class,), None, None)
        present = np.flatnonzero(label_K == 1) if self.classes == "present" else range(len(label_K))
        return ListedMaps(tuple(int(index) for index in present), None, None)

    def _wanted(self, class_S: Array) -> str:
        names = self.images.class_names()
        listed = ", ".join(names[index] for index in class_S[:4].tolist())
        listed += ", …" if len(class_S) > 4 else ""
        how = {"present": "shows", "all": "needs all of"}.get(self.classes, "is listed with")
        return f"{how} {len(class_S)} classes ({listed or 'none'})"

    def _scores(
        self, row: int, values_SHW: Array, listed: ListedMaps, name: str
    ) -> tuple[Array, Array]:
        """Return the scores of the maps, float32 (S,), and of all classes, float32 (K,)."""
        class_S = list(listed.class_index)
        if self.score_NK is not None:
            class_score_K = self.score_NK[row]
            score_S = class_score_K[class_S] if listed.score is None else listed.score
            score_S = np.array(score_S, np.float32)
        else:
            class_score_K = np.full(self.images.shape("class_name")[0], -np.inf, np.float32)
            largest_S = values_SHW.max(axis=(1, 2)) if listed.score is None else listed.score
            with np.errstate(over="ignore"):
                score_S = np.array(largest_S, np.float64).astype(np.float32)
            class_score_K[class_S] = score_S
        if not np.isfinite(score_S).all():
            raise BadImageError(
                f"{name}: a map has the class score {score_S[~np.isfinite(score_S)][0]}, expected "
                "a finite number."
            )
        return score_S, class_score_K


@dataclass(frozen=True)
class _ImageMaps:
    """The maps of one image, slot by slot."""

    map_SHW: Array
    class_S: Array
    score_S: Array
    class_score_K: Array
    extent_xyxy: tuple[float, ...] | None


def _converted(values_SHW: Array, dtype: type[np.floating[Any]], name: str) -> Array:
    with np.errstate(over="ignore"):
        map_SHW = values_SHW.astype(dtype)
    if not np.isfinite(map_SHW).all():
        largest = float(np.abs(values_SHW.astype(np.float64)).max())
        raise BadImageError(
            f"{name}: holds {largest:g}, {np.dtype(dtype).name} holds numbers up to "
            f"{float(np.finfo(dtype).max):g}. Pass a wider --map-dtype."
        )
    return map_SHW


def _stacked(
    found: list[_ImageMaps | None], dtype: type[np.floating[Any]], *, has_one_grid: bool
) -> Rows:
    """Return the maps of a block, images and slots beyond what there is left empty."""
    good = {n: one for n, one in enumerate(found) if one is not None and len(one.class_S)}
    shapes = [one.map_SHW.shape for one in good.values()] or [(1, 1, 1)]
    num_slots, num_rows, num_cols = (max(sizes) for sizes in zip(*shapes, strict=True))
    rows = {
        "map": np.zeros((len(found), num_slots, num_rows, num_cols), dtype),
        "map_class": np.full((len(found), num_slots), -1, np.int32),
        "map_score": np.full((len(found), num_slots), -np.inf, np.float32),
    }
    grid_N2 = np.zeros((len(found), 2), np.int32)
    for n, one in good.items():
        used, high, wide = one.map_SHW.shape
        rows["map"][n, :used, :high, :wide] = one.map_SHW
        rows["map_class"][n, :used], rows["map_score"][n, :used] = one.class_S, one.score_S
        grid_N2[n] = high, wide
    return rows if has_one_grid else rows | {"map_grid": grid_N2}
