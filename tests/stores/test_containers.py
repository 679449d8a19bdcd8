"""One kit, run on both containers: what goes in comes out, or an error does."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import StoreCorruptError, StoreError, UsageError
from wsltool.stores.open import open_store
from wsltool.stores.schema import KINDS, RAGGED, string_array
from wsltool.stores.verify import verify_store
from wsltool.stores.write import StoreWriter

from .examples import TEXTS, example_arrays, same, write_store

Array = np.ndarray[Any, Any]

SUFFIXES = (".zarr", ".h5")
both = pytest.mark.parametrize("suffix", SUFFIXES)
every_kind = pytest.mark.parametrize("kind", KINDS)


@both
@every_kind
def test_every_array_of_the_schema_comes_back(tmp_path: Path, kind: str, suffix: str) -> None:
    arrays = example_arrays(kind, 11)
    path = write_store(tmp_path / f"a{suffix}", kind, arrays, pieces=3)
    with open_store(path) as store:
        assert store.names == list(arrays) == list(KINDS[kind])
        assert (store.kind, len(store)) == (kind, 11)
        for name, values in arrays.items():
            assert same(store.whole(name), values), name
            assert same(store.rows(name, 2, 5), values[2:5]), name
            assert same(store.rows(name, 3, 3), values[:0]), name
            assert store.dims(name) == KINDS[kind][name].dims
        assert verify_store(store) == []


@both
@every_kind
def test_no_images_at_all_come_back(tmp_path: Path, kind: str, suffix: str) -> None:
    arrays = example_arrays(kind, 0)
    with open_store(write_store(tmp_path / f"a{suffix}", kind, arrays)) as store:
        assert len(store) == 0
        assert all(same(store.whole(name), values) for name, values in arrays.items())
        assert verify_store(store) == []


@both
@pytest.mark.parametrize("kind", [kind for kind in KINDS if RAGGED[kind]])
def test_ragged_arrays_without_a_row_come_back(tmp_path: Path, kind: str, suffix: str) -> None:
    arrays = example_arrays(kind, 5, per_image=0)
    with open_store(write_store(tmp_path / f"a{suffix}", kind, arrays)) as store:
        for axis in RAGGED[kind]:
            for name in [name for name, spec in KINDS[kind].items() if spec.dims[0] == axis]:
                assert store.shape(name)[0] == 0
                assert store.ragged_rows(axis, 1, 4)[name].shape == store.shape(name)
        assert all(same(store.whole(name), values) for name, values in arrays.items())


@both
def test_rows_across_chunks_and_shards_come_back(tmp_path: Path, suffix: str) -> None:
    arrays = example_arrays("maps", 3) | _large_maps(330)
    path = write_store(tmp_path / f"a{suffix}", "maps", arrays, pieces=7)
    with open_store(path) as store:
        for start, stop in ((0, 330), (9, 11), (255, 330), (329, 330), (319, 321)):
            assert same(store.rows("map", start, stop), arrays["map"][start:stop])
        assert verify_store(store) == []
    if suffix == ".zarr":
        assert len(list((path / "map" / "c").rglob("*"))) > 4  # several shards, or this is idle


def _large_maps(num_images: int) -> dict[str, Array]:
    """Return maps of 34 MB that compress well."""
    arrays = example_arrays("maps", num_images)
    arrays["map"] = np.zeros((num_images, 2, 80, 160), np.float32)
    arrays["map"][:] = np.arange(num_images)[:, None, None, None]
    arrays["suppressed"] = np.zeros(arrays["map"].shape, np.uint8)
    return arrays


@both
def test_raw_bytes_across_chunks_come_back(tmp_path: Path, suffix: str) -> None:
    arrays = example_arrays("images", 4)
    arrays["byte"] = np.random.default_rng(0).integers(0, 256, 3 << 20).astype(np.uint8)
    arrays["byte_start"] = np.array([0, 10, 10, 1 << 20, 3 << 20])
    with open_store(write_store(tmp_path / f"a{suffix}", "images", arrays, pieces=5)) as store:
        assert same(store.whole("byte"), arrays["byte"])
        assert same(store.ragged_rows("n", 2, 3)["byte"], arrays["byte"][10 : 1 << 20])


@both
def test_many_strings_come_back_whatever_rows_are_asked_for(tmp_path: Path, suffix: str) -> None:
    arrays = example_arrays("images", 4)
    arrays["class_name"] = string_array([f"{n} {TEXTS[n % 5]}" for n in range(40_000)])
    arrays |= {"class_id": arrays["class_name"], "label": np.zeros((4, 40_000), np.uint8)}
    with open_store(write_store(tmp_path / f"a{suffix}", "images", arrays, pieces=3)) as store:
        for start, stop in ((0, 40_000), (16_380, 16_390), (39_999, 40_000)):
            assert same(store.rows("class_name", start, stop), arrays["class_name"][start:stop])


@both
def test_attributes_survive(tmp_path: Path, suffix: str) -> None:
    given = {"root": "../pictures ü", "grid": [14, 14], "layer": {"name": "x", "depth": 3}}
    given |= {"number": 3, "ratio": 0.25, "flag": True, "odd": "[not json", "none": ""}
    meta = {"stage": "x", "params": {"a": None, "b": [1.5]}, "inputs": {}, "id": "1" * 32}
    arrays = example_arrays("maps", 2)
    with open_store(write_store(tmp_path / f"a{suffix}", "maps", arrays, meta, **given)) as store:
        assert {name: value for name, value in store.attributes.items() if name in given} == given
        assert type(store.attributes["flag"]) is bool
        assert {key: store.meta[key] for key in meta} == meta


@both
def test_fewer_slots_and_smaller_grids_are_padded_with_the_fill_of_the_schema(
    tmp_path: Path, suffix: str
) -> None:
    writer = StoreWriter(tmp_path / f"a{suffix}", "maps")
    writer.create("map", (3, 3, 2, 2), "float32")
    writer.create("map_class", (3, 3), "int32")
    writer.create("map_score", (3, 3), "float32")
    writer.append("map", np.ones((2, 1, 2, 1), np.float32))
    writer.append("map", np.full((1, 3, 2, 2), 2, np.float32))
    writer.append("map_class", np.array([[7], [8]], np.int32))
    writer.append("map_class", np.array([[1, 2, 3]], np.int32))
    writer.append("map_score", np.array([[5], [6]], np.float32))
    writer.append("map_score", np.array([[3, 2, 1]], np.float32))
    writer.finish({"format": 1, "kind": "maps"}, {})
    with open_store(tmp_path / f"a{suffix}") as store:
        assert store.whole("map")[0].tolist() == [[[1, 0], [1, 0]]] + [[[0, 0], [0, 0]]] * 2
        assert store.whole("map_class").tolist() == [[7, -1, -1], [8, -1, -1], [1, 2, 3]]
        assert store.whole("map_score")[1].tolist() == [6, -np.inf, -np.inf]


def _naive_digest(arrays: dict[str, Array]) -> str:
    """Return the digest of the schema's page, computed from whole arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name]
        if values.dtype.kind == "T":
            raw = [text.encode() for text in values.tolist()]
            data, dtype = b"".join(len(r).to_bytes(8, "little") + r for r in raw), "string"
        else:
            data, dtype = values.tobytes(), values.dtype.name
        head = json.dumps([name, dtype, list(values.shape)]).encode()
        total.update(head + hashlib.sha256(data).digest())
    return "sha256:" + total.hexdigest()


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(texts, max_size=9),
    values=st.lists(st.floats(width=32), min_size=9, max_size=9),
    pieces=st.integers(1, 9),
    suffix=st.sampled_from(SUFFIXES),
)
def test_the_digest_is_of_the_values_alone(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    values: list[float],
    pieces: int,
    suffix: str,
) -> None:
    num = len(names)
    arrays = {"image_id": string_array(names)}
    arrays["class_score"] = np.array(values[:num], np.float32).reshape(num, 1)
    path = tmp_path_factory.mktemp("digest") / f"a{suffix}"
    with open_store(write_store(path, "maps", arrays, pieces=pieces)) as store:
        assert store.meta["digest"] == store.compute_digest() == _naive_digest(arrays)
        assert store.whole("image_id").tolist() == names
    shutil.rmtree(path.parent)


def test_the_digest_sees_every_array_its_name_shape_and_dtype() -> None:
    base = {"a": np.zeros((2, 3), np.float32), "b": string_array(["x", "yz"])}
    others = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].reshape(3, 2), "b": base["b"]},
        {"a": base["a"].view(np.int32), "b": base["b"]},
        {"a": base["a"], "b": string_array(["xy", "z"])},
        {"a": base["a"]},
    ]
    assert len({_naive_digest(arrays) for arrays in [base, *others]}) == 6


def _flip(file: Path, rng: random.Random) -> bytes:
    """Flip one bit of a file; return what it held before."""
    before = file.read_bytes()
    data = bytearray(before)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return before


@both
def test_a_flipped_bit_anywhere_is_an_error_or_changes_nothing(tmp_path: Path, suffix: str) -> None:
    arrays = example_arrays("maps", 9)
    path = write_store(tmp_path / f"a{suffix}", "maps", arrays)
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    rng, outcomes = random.Random(5), {"told": 0, "same": 0}
    for _ in range(250):
        file = rng.choice(files)
        if file.name == "zarr.json":
            continue  # plain text, see below
        before = _flip(file, rng)
        try:
            with open_store(path) as store:
                for name, values in arrays.items():
                    assert same(store.whole(name), values), f"{file.name} {name}: silently wrong"
                outcomes["same"] += verify_store(store) == []
        except StoreCorruptError as error:
            outcomes["told"] += len(str(error).splitlines()) == 1
        file.write_bytes(before)
    assert outcomes["told"] > 100


def test_a_flipped_bit_in_zarr_metadata_is_one_line_or_found_by_verify(tmp_path: Path) -> None:
    arrays = example_arrays("maps", 9)
    path = write_store(tmp_path / "a.zarr", "maps", arrays)
    file, rng, lines = path / "zarr.json", random.Random(6), 0
    for _ in range(120):
        before = _flip(file, rng)
        try:
            with open_store(path) as store:
                whole = {name: store.whole(name) for name in arrays}
                changed = [name for name, v in whole.items() if not same(v, arrays[name])]
                assert not changed or verify_store(store), changed
        except StoreError as error:
            lines += len(str(error).splitlines()) - 1
        file.write_bytes(before)
    assert lines == 0


def test_a_missing_chunk_is_an_error_never_zeros(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr", "maps", example_arrays("maps", 4))
    (path / "map" / "c" / "0" / "0" / "0" / "0").unlink()
    message = r"^a\.zarr: array map: chunk c/0/0/0/0 is missing\. Copy or make the store again"
    with open_store(path) as store:
        with pytest.raises(StoreCorruptError, match=message):
            store.rows("map", 0, 1)
        assert store.rows("map_class", 0, 4).shape == (4, 2)
        [problem] = verify_store(store)
        assert problem.startswith("a.zarr: array map: chunk c/0/0/0/0 is missing")


def test_a_missing_shard_fails_only_the_rows_that_it_held(tmp_path: Path) -> None:
    arrays = example_arrays("maps", 3) | _large_maps(330)
    path = write_store(tmp_path / "a.zarr", "maps", arrays)
    (path / "map" / "c" / "1" / "0" / "0" / "0").unlink()
    with open_store(path) as store:
        assert same(store.rows("map", 0, 8), arrays["map"][:8])
        with pytest.raises(StoreCorruptError, match="chunk c/1/0/0/0 is missing"):
            store.rows("map", 0, 330)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_hdf5_file_is_one_clear_line(tmp_path: Path, share: float) -> None:
    path = write_store(tmp_path / "a.h5", "maps", example_arrays("maps", 9))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    line = r"^a\.h5: cannot be opened as HDF5: [^\n]+\. Copy or make the store again\.$"
    with pytest.raises(StoreCorruptError, match=line):
        open_store(path)


def test_a_string_that_hdf5_cannot_hold_is_one_clear_line(tmp_path: Path) -> None:
    arrays = {"image_id": string_array(["a\0b"])}
    with open_store(write_store(tmp_path / "a.zarr", "maps", arrays)) as store:
        assert store.whole("image_id").tolist() == ["a\0b"]
    line = r"^a\.h5: array image_id: HDF5 cannot hold it: .+ Pass -o with a name that ends in"
    with pytest.raises(StoreError, match=line):
        write_store(tmp_path / "a.h5", "maps", arrays)


def test_a_name_without_a_container_is_wrong_usage(tmp_path: Path) -> None:
    line = (
        r'a\.npy: a store ends in \.zarr or \.h5, this name ends in "\.npy"\. Name it a\.npy\.zarr'
    )
    with pytest.raises(UsageError, match=line):
        StoreWriter(tmp_path / "a.npy", "maps")


@both
def test_a_flipped_bit_in_raw_bytes_is_an_error(tmp_path: Path, suffix: str) -> None:
    arrays = example_arrays("images", 4)
    arrays["byte"] = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
    arrays["byte_start"] = np.array([0, 10, 10, 1000, 5000])
    path = write_store(tmp_path / f"a{suffix}", "images", arrays)
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    [file] = [file for file in files if arrays["byte"].tobytes() in file.read_bytes()]
    data = bytearray(file.read_bytes())
    data[data.index(arrays["byte"].tobytes()) + 2500] ^= 16
    file.write_bytes(data)
    with open_store(path) as store:
        line = rf"^a\{suffix}: array byte, rows 0 to 10: .+\. Copy or make the store again\.$"
        with pytest.raises(StoreCorruptError, match=line):
            store.rows("byte", 0, 10)
