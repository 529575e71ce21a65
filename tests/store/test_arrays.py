"""Arrays go in and come out bit for bit, as Zarr v3 that any reader opens."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from qsm_dask.errors import StoreError
from qsm_dask.quantities import COORDINATES, QUANTITIES
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.store.coding import ArrayCoder, array_metadata
from tests.store.conftest import KEY, Write, chunks_of

SIDES = st.integers(1, 5)
IMAGES = st.sampled_from(["phase", "mask", "dseg", "chi", "mask_strong"])


@st.composite
def images(draw: st.DrawFn) -> dict[str, NDArray[Any]]:
    """Arrays by name, any content: NaN with payloads, infinities, negative zeros, subnormals."""
    found = {}
    for name in draw(st.sets(IMAGES, min_size=1)):
        meaning = QUANTITIES[name.removesuffix("_strong")]
        shape = draw(st.tuples(*[SIDES] * len(meaning.dims)))
        found[name] = draw(hnp.arrays(np.dtype(meaning.dtype), shape))
    return found


@given(values=images())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_come_back_bit_for_bit(store: CohortStore, scan: ScanKey, values: dict[str, NDArray[Any]]) -> None:
    store.write(scan, "field", KEY, values, attributes={}, provenance={}, seconds=0, peak_bytes=0)
    commit = store.commit(scan, "field", KEY)
    assert commit is not None
    found = store.read(commit)
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()
    assert store.verify(commit) == []


def test_region_values_keep_their_nans(write: Write, store: CohortStore) -> None:
    values = np.full((len(COORDINATES["map"]), 3, len(COORDINATES["statistic"])), np.nan)
    values[0, 1] = np.arange(20)
    commit = write({"region_values": values, "region_labels": np.array([0, 4, 9])})
    np.testing.assert_array_equal(store.read(commit)["region_values"], values)
    assert commit.arrays["region_labels"]["values"] == [0, 4, 9]


def test_a_transposed_view_is_stored_in_c_order(write: Write, store: CohortStore) -> None:
    chi = np.arange(24, dtype=np.float32).reshape(4, 3, 2).transpose()
    np.testing.assert_array_equal(store.read(write({"chi": chi}))["chi"], chi)


def test_one_array_can_be_read_alone(write: Write, store: CohortStore, arrays: dict[str, NDArray[Any]]) -> None:
    commit = write()
    assert list(store.read(commit, ["dseg"])) == ["dseg"]
    with pytest.raises(StoreError, match=r"sub-01_ses-1 field: no array chi; it has phase, mask, dseg"):
        store.read(commit, ["chi"])


def test_one_echo_can_be_read_alone(write: Write, store: CohortStore, arrays: dict[str, NDArray[Any]]) -> None:
    commit = write()
    for name in ("c.0.0.0.0", "c.2.0.0.0"):  # nothing but the echo asked for is touched
        (store.place.folder / commit.folder / "phase" / name).unlink()
    np.testing.assert_array_equal(store.read_rows(commit, "phase", slice(1, 2)), arrays["phase"][1:2])


@pytest.mark.parametrize("shape", [(5, 2, 3, 2), (3, 2, 2, 3, 2), (4, 3, 2), (7,), ()])
def test_every_volume_is_a_chunk_and_comes_back(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    dims = ("coil", "echo", "x", "y", "z")[5 - len(shape) :]
    coder = ArrayCoder(array_metadata(shape, values.dtype, dims, {}))
    packed = dict(coder.encode(values))
    assert len(packed) == np.prod(shape[:-3])
    for name, index in coder.chunks():
        found = np.empty(shape[-3:], np.float32)
        coder.decode(packed[name], found)
        np.testing.assert_array_equal(found, values[index])


def test_any_zarr_reader_opens_an_attempt(write: Write, store: CohortStore, arrays: dict[str, NDArray[Any]]) -> None:
    group = zarr.open_group(store.place.folder / write().folder, mode="r")
    assert sorted(group.array_keys()) == sorted(arrays)
    for name, values in arrays.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(np.asarray(array[...]), values)
    assert group["phase"].attrs["units"] == "rad"


def test_xarray_opens_an_attempt_with_its_dims(write: Write, store: CohortStore) -> None:
    with xr.open_zarr(store.place.folder / write().folder, consolidated=False) as found:
        assert found["phase"].dims == ("echo", "x", "y", "z")
        assert found["mask"].dtype == bool


def test_each_echo_is_a_chunk_with_a_checksum_even_when_empty(write: Write, store: CohortStore) -> None:
    commit = write()
    metadata = json.loads((store.place.folder / commit.folder / "phase" / "zarr.json").read_bytes())
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [1, 6, 5, 4]
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "blosc", "crc32c"]
    assert list(commit.arrays["phase"]["chunks"]) == [f"phase/c.{n}.0.0.0" for n in range(3)]
    assert [path.stat().st_size for path in chunks_of(store, commit)] == [
        size for entry in commit.arrays.values() for size in entry["chunks"].values()
    ]
    assert (store.place.folder / commit.folder / "mask" / "c.0.0.0").is_file()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"blob": np.zeros(3)}, "'blob' is no quantity"),
        ({"../chi": np.zeros(3)}, "cannot name an array"),
        ({"chi": np.zeros((2, 2, 2))}, "chi has dtype float64; it must be float32"),
        ({"chi": np.zeros((2, 2), np.float32)}, r"chi has shape \(2, 2\); its axes must be \(x, y, z\)"),
        ({"region_values": np.zeros((2, 3, 4))}, r"its axes must be \(map=8, region, statistic=20\)"),
        ({"mask": np.zeros((2, 2, 2), np.uint8)}, "mask has dtype uint8; it must be bool"),
    ],
)
def test_what_is_not_what_its_name_promises_is_refused(
    write: Write, store: CohortStore, values: Mapping[str, NDArray[Any]], words: str
) -> None:
    with pytest.raises(StoreError, match=f"^sub-01_ses-1 field: .*{words}"):
        write(values)
    assert not (store.place.folder / "scans").exists()


def test_foreign_byte_order_is_refused(write: Write) -> None:
    with pytest.raises(StoreError, match="it must be float32"):
        write({"chi": np.zeros((2, 2, 2), ">f4")})


def test_files_do_not_depend_on_the_version_of_zarr(tmp_path: Path) -> None:
    """The metadata is ours, and zarr reads back from it what it would have written itself."""
    shape, dims = (2, 3, 4, 5), ("echo", "x", "y", "z")
    values = np.arange(120, dtype=np.float32).reshape(shape)
    coder = ArrayCoder(array_metadata(shape, values.dtype, dims, {"units": "rad"}))
    ours = dict(coder.encode(values))
    array = zarr.create_array(
        tmp_path / "theirs",
        shape=shape,
        dtype="float32",
        chunks=(1, 3, 4, 5),
        compressors=[
            zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4),
            zarr.codecs.Crc32cCodec(),
        ],
        fill_value=0,
        dimension_names=dims,
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes={"units": "rad"},
    )
    array[...] = values
    theirs = {path.name: path.read_bytes() for path in (tmp_path / "theirs").glob("c.*")}
    assert ours == theirs
    written = json.loads((tmp_path / "theirs" / "zarr.json").read_bytes())
    mine = json.loads(array_metadata(shape, values.dtype, dims, {"units": "rad"}))
    assert mine == {name: value for name, value in written.items() if name != "storage_transformers"}
