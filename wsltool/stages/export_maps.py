"""Maps, class scores and masks in the forms of others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from wsltool.datasets.export_texts import comp_line
from wsltool.datasets.map_listing import LISTING
from wsltool.stages.export_places import Draft
from wsltool.stages.export_rows import class_words, plain_word, starts_and_stops
from wsltool.stages.map_rows import map_rows
from wsltool.stores.store import Store

__all__ = ["CLASS_SCORES", "write_class_scores", "write_maps", "write_masks"]

Array = np.ndarray[Any, Any]

CLASS_SCORES = "class-score.npy"
_ATTRIBUTES = ("classes", "score_kind", "probability")


def write_maps(maps: Store, images: Store, draft: Draft) -> None:
    """Write the maps of each image as ``.npy`` (S, H, W), a listing, and the class scores.

    Values, dtype and resolution are the store's own. `wsltool ingest maps` reads the folder with
    ``--classes maps.json --class-score class-score.npy``.
    """
    words = class_words(images)
    told = {name: maps.attributes[name] for name in _ATTRIBUTES if maps.attributes.get(name)}
    with (
        draft.file(LISTING, "").open("w", encoding="utf-8", newline="\n") as file,
        draft.file(CLASS_SCORES, "").open("wb") as scores,
    ):
        file.write(f'{json.dumps(told)[:-1]}{", " if told else ""}"images": {{')
        _write_header(scores, maps)
        for start, stop in starts_and_stops(maps):
            scores.write(_little(maps.rows("class_score", start, stop)).tobytes())
            names = maps.rows("image_id", start, stop).tolist()
            for n, line in enumerate(_write_block(maps, start, stop, names, words, draft)):
                file.write((",\n" if start + n else "\n") + line)
        file.write("\n}}\n")


def _write_header(file: Any, maps: Store) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": maps.shape("class_score")}
    np.lib.format.write_array_header_1_0(file, header)


def _little(values: Array) -> Array:
    return np.ascontiguousarray(values, "<f4")


def _write_block(
    maps: Store, start: int, stop: int, names: list[str], words: list[str], draft: Draft
) -> list[str]:
    """Write the files of a block; return the listing's line of each image."""
    lines = []
    score_NS = maps.rows("map_score", start, stop)
    for row in range(start, stop):  # one image at a time: maps are large
        one = next(map_rows(maps, row, row + 1))
        name = names[row - start]
        told: dict[str, Any] = {"label": []}
        if one is not None:
            used = list(one.slots())
            np.save(draft.file(name, ".npy"), one.map_SHW[used], allow_pickle=False)
            told = {
                "label": [words[index] for index in one.class_S[used].tolist()],
                "score": score_NS[row - start, used].astype(np.float64).tolist(),
                "extent": one.extent_xyxy.astype(np.float64).tolist(),
            }
        key = json.dumps(name, ensure_ascii=False)
        lines.append(f"{key}: {json.dumps(told, ensure_ascii=False)}")
    return lines


def write_class_scores(maps: Store, images: Store, draft: Draft, split: str) -> None:
    """Write class scores for VOC's evaluation server, a file a class; −inf is left out."""
    words = class_words(images)
    paths = [draft.file(f"comp1_cls_{split}_{plain_word(word)}", ".txt") for word in words]
    for path in paths:
        path.touch()
    for start, stop in starts_and_stops(maps):
        names = maps.rows("image_id", start, stop).tolist()
        score_NK = maps.rows("class_score", start, stop).astype(np.float64)
        for index, path in enumerate(paths):
            lines = [
                comp_line(str(name), score)
                for name, score in zip(names, score_NK[:, index].tolist(), strict=True)
                if np.isfinite(score)
            ]
            with path.open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)


def write_masks(masks: Store, draft: Draft) -> None:
    """Write the label image of every image that has one, byte for byte."""
    for start, stop in starts_and_stops(masks):
        names = masks.rows("image_id", start, stop).tolist()
        edge, where = masks.ragged("n", start, stop)
        for n, name in enumerate(names):
            low, high = (where.start + int(place) for place in edge[n : n + 2])
            if high > low:
                data = masks.rows("mask_byte", low, high).tobytes()
                draft.file(str(name), ".png").write_bytes(data)
