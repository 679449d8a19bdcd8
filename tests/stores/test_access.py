"""A store in other people's hands: xarray, and torch's data loader."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

import wsltool
from wsltool.errors import UsageError
from wsltool.stores.schema import KINDS, row_axis

from .examples import example_arrays, same, write_store


@pytest.mark.parametrize("per_image", [2, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_xarray_opens_it_with_named_dimensions_and_no_warning(
    tmp_path: Path, kind: str, per_image: int
) -> None:
    xarray = pytest.importorskip("xarray", reason="the extra xarray is not installed")
    arrays = example_arrays(kind, 6, per_image)
    path = write_store(tmp_path / "a.zarr", kind, arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = wsltool.as_xarray(path)
        with xarray.open_zarr(str(path)) as plain:
            assert set(plain.variables) == set(arrays)
    for name, values in arrays.items():
        assert opened[name].dims == KINDS[kind][name].dims
        assert opened[name].values.tolist() == values.tolist(), name
    assert opened.attrs["wsltool"]["kind"] == kind


def test_xarray_does_not_open_hdf5(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.h5", "maps", example_arrays("maps", 2))
    with pytest.raises(UsageError, match=r"a\.h5: xarray opens \.zarr stores\. Run: wsltool conv"):
        wsltool.as_xarray(path)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if row_axis(kind) == "image"])
def test_rows_of_a_data_set_are_the_rows_of_the_store(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    pytest.importorskip("torch")
    arrays = example_arrays(kind, 5)
    data = wsltool.as_dataset(write_store(tmp_path / f"a{suffix}", kind, arrays))
    assert len(data) == 5
    again = pickle.loads(pickle.dumps(data))
    for row in (0, 4, -1):
        item = again[row]
        assert item["image_id"] == arrays["image_id"][row]
        assert same(item["image_size"], arrays["image_size"][row])
        if "box" in arrays:
            start, stop = arrays["box_start"][row % 5], arrays["box_start"][row % 5 + 1]
            assert same(item["box"], arrays["box"][start:stop])
        if "candidate" in arrays:
            start, stop = arrays["candidate_start"][row % 5 : row % 5 + 2]
            assert same(item["candidate"], arrays["candidate"][start:stop])
    with pytest.raises(IndexError, match="row 5 is not among the 5 rows"):
        data[5]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_data_loader_with_two_workers_reads_every_row(tmp_path: Path, suffix: str) -> None:
    loading = pytest.importorskip("torch.utils.data")
    arrays = example_arrays("maps", 9)
    data = wsltool.as_dataset(write_store(tmp_path / f"a{suffix}", "maps", arrays))
    data[0]  # opened in this process too: workers must open it anew
    loader = loading.DataLoader(data, batch_size=2, num_workers=2, collate_fn=list)
    rows = [row for batch in loader for row in batch]
    assert [str(row["image_id"]) for row in rows] == arrays["image_id"].tolist()
    assert same(np.stack([row["map"] for row in rows]), arrays["map"])


def test_a_class_of_clusters_is_a_row(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    arrays = example_arrays("clusters", 5)
    data = wsltool.as_dataset(write_store(tmp_path / "a.zarr", "clusters", arrays))
    assert len(data) == 5
    assert data[4]["class_name"] == arrays["class_name"][4]
    assert same(data[4]["eigenvalue"], arrays["eigenvalue"][4])


def test_patterns_of_an_image_count_from_its_first_cell(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    arrays = example_arrays("features", 5)
    data = wsltool.as_dataset(write_store(tmp_path / "a.zarr", "features", arrays))
    found = [data[row]["pattern_cell"] + arrays["cell_start"][row] for row in range(5)]
    assert np.concatenate(found).tolist() == arrays["pattern_cell"].tolist()
    assert all((data[row]["pattern_cell"] < len(data[row]["cell"])).all() for row in range(5))
