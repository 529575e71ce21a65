"""The cohort cube: appended to and never rewritten, whole or absent, read by brick, and as if the maps were stacked."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from qsm_dask.errors import DamageError, StoreError
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.store.files import LocalFiles
from qsm_dask.workflow import verify
from tests.store.conftest import flip
from tests.store.test_sweep import age

SHAPE = (10, 9, 7)
BRICK = 4
AFFINE = np.array([[-2.0, 0, 0, 9.0], [0, 2.0, 0, -8.0], [0, 0, 3.0, -9.0], [0, 0, 0, 1.0]])


def chi_of(scan: str, version: int = 0) -> NDArray[np.float32]:
    """A map that is a scan's own, with nothing outside its mask."""
    rng = np.random.default_rng([*scan.encode(), version])
    values = rng.normal(0.0, 0.05, SHAPE).astype(np.float32)
    values[rng.random(SHAPE) < 0.3] = np.nan
    return values


def scan_done(store: CohortStore, scan: str, version: int = 0, affine: NDArray[np.float64] = AFFINE) -> None:
    """The node `standard` of a scan."""
    arrays: dict[str, NDArray[Any]] = {"chi_standard": chi_of(scan, version), "template_affine": affine}
    commit = store.write(
        ScanKey.parse(scan), "standard", f"ab{version}", arrays, attributes={}, provenance={}, seconds=0, peak_bytes=0
    )
    store.record([commit.row()])


def append(store: CohortStore, **options: Any) -> int:
    """Append what is pending, in small bricks; how many segments."""
    batches = store.cubes.pending("chi_standard", **options)
    for batch in batches:
        store.cubes.append(batch, BRICK)
    return len(batches)


def stacked(scans: Sequence[str], version: int = 0) -> NDArray[np.float32]:
    return np.stack([chi_of(scan, version) for scan in scans])


@pytest.fixture(params=["folder", "s3"])
def cohort(request: pytest.FixtureRequest, tmp_path: Path) -> CohortStore:
    place = tmp_path / "cohort" if request.param == "folder" else request.getfixturevalue("s3_url")
    return CohortStore.create(place)


@pytest.fixture
def three(store: CohortStore) -> CohortStore:
    """Three scans in one segment."""
    for number in (1, 2, 3):
        scan_done(store, f"sub-0{number}_ses-1")
    assert append(store) == 1
    return store


THREE = [f"sub-0{number}_ses-1" for number in (1, 2, 3)]


def files_below(store: CohortStore) -> dict[Path, tuple[bytes, int]]:
    folder = store.place.folder / "cubes"
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_the_cube_equals_the_maps_stacked_by_hand(cohort: CohortStore) -> None:
    names = [f"sub-{number:02d}" for number in range(1, 6)]
    for name in names:
        scan_done(cohort, name)
    assert append(cohort, scans=2) == 3
    cube = CohortStore.open(cohort.place.url).cube("chi")
    assert cube.dims == ("scan", "x", "y", "z")
    assert list(cube.scan.values) == names
    assert cube.chunks == ((2, 2, 1), (4, 4, 2), (4, 4, 1), (4, 3))
    np.testing.assert_array_equal(cube.values, stacked(names))
    assert (cube.attrs["units"], cube.attrs["pending"]) == ("ppm", 0)
    np.testing.assert_array_equal(cube.x, 9.0 - 2.0 * np.arange(10))
    np.testing.assert_array_equal(cube.attrs["affine"], AFFINE)
    mean = cube.mean("scan").compute(scheduler="sync")
    with np.errstate(invalid="ignore"):
        wanted = np.nansum(stacked(names), axis=0) / np.isfinite(stacked(names)).sum(axis=0)
    np.testing.assert_allclose(mean, wanted, atol=1e-6)


def test_appending_leaves_every_former_object_as_it_was(three: CohortStore) -> None:
    before = files_below(three)
    scan_done(three, "sub-00_ses-1")
    scan_done(three, "sub-04_ses-1")
    assert three.cube("chi").attrs["pending"] == 2
    assert append(three) == 1
    assert append(three) == 0
    after = files_below(three)
    assert {path: after[path] for path in before} == before
    cube = three.cube("chi")
    names = list(cube.scan.values)
    assert sorted(names) == ["sub-00_ses-1", *THREE, "sub-04_ses-1"]
    np.testing.assert_array_equal(cube.values, stacked(names))


def test_a_brick_of_all_scans_is_one_object_a_segment(three: CohortStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (4, 5):
        scan_done(three, f"sub-0{number}_ses-1")
    append(three)
    read: list[str] = []
    get = LocalFiles.get
    monkeypatch.setattr(LocalFiles, "get", lambda self, key: (read.append(key), get(self, key))[1])
    cube = three.cube("chi")
    assert sorted(key.rpartition("/")[2] for key in read if key.startswith("cubes/")) == ["SEGMENT.json"] * 2
    read.clear()
    brick = cube[:, 4:8, :4, 4:]
    np.testing.assert_array_equal(brick.compute(scheduler="sync"), stacked(brick.scan.values)[:, 4:8, :4, 4:])
    assert [key.rpartition("/")[2] for key in read] == ["c.0.1.0.1"] * 2


def test_a_torn_append_is_invisible(three: CohortStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver is killed when all bricks are written and the record is not."""
    scan_done(three, "sub-04_ses-1")
    put = LocalFiles.put

    def dies(self: LocalFiles, key: str, data: bytes) -> None:
        if key.endswith("SEGMENT.json"):
            raise KeyboardInterrupt
        put(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "put", dies)
        with pytest.raises(KeyboardInterrupt):
            append(three)
    cube = three.cube("chi")
    assert list(cube.scan.values) == THREE
    np.testing.assert_array_equal(cube.values, stacked(THREE))
    age(three.place.folder / "cubes", 48)
    (leftover,) = three.cubes.leftovers(3600.0)
    assert (leftover.scan, leftover.node, leftover.kind) == (None, "chi_standard", "orphan")
    three.upkeep.discard(leftover)
    assert append(three) == 1
    assert list(three.cube("chi").scan.values) == [*THREE, "sub-04_ses-1"]


def test_a_brick_that_cannot_be_written_leaves_nothing_behind(
    three: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_done(three, "sub-04_ses-1")
    before = files_below(three)
    with monkeypatch.context() as patch:
        patch.setattr("qsm_dask.store.segments.checksum", lambda data: str(id(data)))
        with pytest.raises(StoreError, match="just after it was written"):
            append(three)
    assert files_below(three) == before


def test_two_drivers_that_append_at_once_hold_every_scan_once(cohort: CohortStore) -> None:
    """The same batch, and another that shares scans with it."""
    names = [f"sub-{number:02d}" for number in range(1, 5)]
    for name in names[:3]:
        scan_done(cohort, name)
    (batch,) = cohort.cubes.pending("chi_standard")
    scan_done(cohort, names[3])
    (larger,) = cohort.cubes.pending("chi_standard")
    drivers = [CohortStore.open(cohort.place.url) for _ in range(3)]
    errors: list[Exception] = []

    def drive(driver: CohortStore, given: Any) -> None:
        try:
            driver.cubes.append(given, BRICK)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    racing = [threading.Thread(target=drive, args=pair) for pair in zip(drivers, (batch, batch, larger), strict=True)]
    for one in racing:
        one.start()
    for one in racing:
        one.join()
    assert errors == []
    cube = CohortStore.open(cohort.place.url).cube("chi")
    assert list(cube.scan.values) == names
    np.testing.assert_array_equal(cube.values, stacked(names))
    assert len(cohort.cubes.published("chi_standard")) == 2
    assert all(cohort.cubes.damages(one) == [] for one in cohort.cubes.published("chi_standard"))


def test_a_scan_that_was_computed_anew_is_masked_until_it_is_appended_again(three: CohortStore) -> None:
    before = files_below(three)
    scan_done(three, "sub-02_ses-1", version=1)
    cube = three.cube("chi")
    assert list(cube.scan.values) == [THREE[0], THREE[2]]
    assert cube.attrs["pending"] == 1
    np.testing.assert_array_equal(cube.values, stacked([THREE[0], THREE[2]]))
    append(three)
    cube = three.cube("chi").sortby("scan")
    assert list(cube.scan.values) == THREE
    np.testing.assert_array_equal(cube[1].values, chi_of("sub-02_ses-1", 1))
    np.testing.assert_array_equal(cube[0].values, chi_of("sub-01_ses-1"))
    after = files_below(three)
    assert {path: after[path] for path in before} == before


def test_small_segments_are_written_together_and_then_superseded(store: CohortStore) -> None:
    for name in THREE:
        scan_done(store, name)
        assert append(store) == 1
    assert store.cubes.pending("chi_standard") == []
    before = files_below(store)
    assert append(store, compact=True) == 1
    assert store.cubes.pending("chi_standard", compact=True) == []
    after = files_below(store)
    assert {path: after[path] for path in before} == before
    assert store.cube("chi").chunks[0] == (3,)
    age(store.place.folder / "cubes", 48)
    assert store.cubes.leftovers(3600.0) == []
    found = store.cubes.leftovers(3600.0, superseded=True)
    assert [one.kind for one in found] == ["superseded"] * 3
    for one in found:
        store.upkeep.discard(one)
    assert len(store.cubes.stored()) == 1
    np.testing.assert_array_equal(store.cube("chi").values, stacked(THREE))


def test_segments_stay_while_what_would_replace_them_is_torn(store: CohortStore) -> None:
    for name in THREE:
        scan_done(store, name)
        append(store)
    append(store, compact=True)
    large, *_ = store.cubes.published("chi_standard")
    (store.place.folder / large.place.folder / "c.0.0.0.0").unlink()
    age(store.place.folder / "cubes", 48)
    (found,) = store.cubes.leftovers(3600.0, superseded=True)
    assert found.key == large.place.key


def test_damage_is_named_and_never_read(three: CohortStore) -> None:
    (segment,) = three.cubes.published("chi_standard")
    folder = three.place.folder / segment.place.folder
    flip(folder / "c.0.0.0.0", 30)
    (folder / "c.0.2.2.1").unlink()
    assert sorted(map(str, three.cubes.damages(segment))) == [
        f"{folder}/c.0.0.0.0 has been altered: its checksum does not fit",
        f"{folder}/c.0.2.2.1 is missing",
    ]
    cube = three.cube("chi")
    with pytest.raises(DamageError, match=r"c\.0\.0\.0\.0 has been altered.*verify"):
        cube[:, :4, :4, :4].compute(scheduler="sync")
    with pytest.raises(DamageError, match=r"c\.0\.2\.2\.1 is missing"):
        cube[:, 8:, 8:, 4:].compute(scheduler="sync")
    np.testing.assert_array_equal(cube[:, 4:8].compute(scheduler="sync"), stacked(THREE)[:, 4:8])
    three.cubes.withdraw("chi_standard", segment.place.key)
    assert append(three) == 1
    np.testing.assert_array_equal(cube.values, stacked(THREE), "a view from before finds the segment again")


def test_an_altered_record_is_damage(three: CohortStore) -> None:
    ((name, key),) = three.cubes.stored()
    record = three.place.folder / "cubes" / name / key / "SEGMENT.json"
    flip(record, 100)
    with pytest.raises(DamageError, match=r"SEGMENT\.json cannot be read"):
        three.cube("chi")
    age(three.place.folder / "cubes", 48)
    assert three.cubes.leftovers(3600.0) == []


def test_what_others_put_among_segments_is_passed_over(three: CohortStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a file manager, folders of a user, and the empty object by which some tools mark a folder on S3."""
    stored, cubes = three.cubes.stored(), three.place.folder / "cubes"
    for stray in (".DS_Store", "chi_standard/.DS_Store", "chi_standard/foo/a", "chi_standard/My maps/a", "My maps/a/b"):
        (cubes / stray).parent.mkdir(exist_ok=True, parents=True)
        (cubes / stray).write_bytes(b"stray")
    ages = LocalFiles.ages
    marker = "cubes/chi_standard"
    monkeypatch.setattr(LocalFiles, "ages", lambda self, prefix: {marker: 9e9, **ages(self, prefix)})
    age(cubes, 48)
    assert three.cubes.leftovers(3600.0, superseded=True) == []
    assert verify.run(three) == []
    assert three.cubes.stored() == stored
    assert append(three, compact=True) == 0
    np.testing.assert_array_equal(three.cube("chi").values, stacked(THREE))


def test_any_reader_of_zarr_opens_a_segment(three: CohortStore) -> None:
    (segment,) = three.cubes.published("chi_standard")
    array = zarr.open_array(str(three.place.folder / segment.place.folder), mode="r")
    assert array.chunks == (3, BRICK, BRICK, BRICK)
    assert array.attrs["scans"] == THREE
    np.testing.assert_array_equal(array[...], stacked(THREE))


def test_what_has_no_cube_is_told(store: CohortStore) -> None:
    with pytest.raises(StoreError, match="'phase' is no map in standard space; there are chi, r2star, magnitude"):
        store.cube("phase")
    with pytest.raises(StoreError, match="has no cube of chi: .*anatomy.standard.*qsm-dask cube"):
        store.cube("chi")
    with pytest.raises(StoreError, match="belongs to the store itself"):
        store.write_document("cubes/chi_standard/a", b"")


def test_scans_on_another_grid_are_refused(store: CohortStore) -> None:
    scan_done(store, "sub-01")
    scan_done(store, "sub-02", affine=2 * AFFINE)
    with pytest.raises(StoreError, match="sub-02: its chi_standard lies on another grid than that of sub-01"):
        append(store)
    assert append(store, scans=1) == 2
    with pytest.raises(StoreError, match="chi_standard on several grids"):
        store.cube("chi")
