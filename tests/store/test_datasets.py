"""What users open: labelled, lazy, and equal to what was committed."""

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from qsm_dask.errors import DamageError, StoreError
from qsm_dask.quantities import COORDINATES
from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore, Commit, attempts
from qsm_dask.store import datasets as datasets_module
from qsm_dask.store.datasets import region_names
from tests.store.conftest import KEY, Write, chunks_of, flip

LABELS = {"1": "caudate_left", "2": "putamen_left"}
HEADER = {
    "te": [0.004, 0.012, 0.02],
    "b0": 3.0,
    "b0_dir": [0.0, 0.0, 1.0],
    "voxel_size": [1.0, 1.0, 2.0],
    "affine": np.diag([1.0, 1, 2, 1]).tolist(),
}
STATISTICS = len(COORDINATES["statistic"])
Regions = Callable[..., NDArray[np.float64]]


@pytest.fixture
def regions(store: CohortStore, write: Write) -> Regions:
    """Commit ingest and regions of a scan, record both, and return the values."""

    def commit(name: str, labels: tuple[int, ...], names: dict[str, str], *, facts: bool = True) -> Any:
        scan = ScanKey.parse(name)
        values = np.random.default_rng(len(name) + sum(labels)).normal(
            size=(len(COORDINATES["map"]), len(labels), STATISTICS)
        )
        chi = {"chi": np.zeros((2, 2, 2), np.float32)}
        made = [
            write(chi, scan=scan, node="ingest", key=INGEST_KEY, attributes={"labels": names}),
            write(
                {"region_labels": np.array(labels), "region_values": values}, scan=scan, node="regions", attributes={}
            ),
        ]
        rows = [commit.row() for commit in made]
        store.record(rows if facts else [{**row, "facts": {}} for row in rows])
        return values

    return commit


def test_values_stored_when_there_were_fewer_maps_and_statistics_are_read(
    store: CohortStore, regions: Regions, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = regions("sub-02", (0, 2), LABELS)
    older = {**COORDINATES, "map": ("chi", "r2star"), "statistic": COORDINATES["statistic"][:10]}
    monkeypatch.setattr(attempts, "COORDINATES", older)
    scan, values = ScanKey.parse("sub-01"), np.arange(40.0).reshape(2, 2, 10)
    chi = {"chi": np.zeros((2, 2, 2), np.float32)}
    made = [
        write(chi, scan=scan, node="ingest", key=INGEST_KEY, attributes={"labels": LABELS}),
        write({"region_labels": np.array([0, 2]), "region_values": values}, scan=scan, node="regions", attributes={}),
    ]
    store.record([commit.row() for commit in made])
    monkeypatch.undo()
    found = store.dataset().compute()
    np.testing.assert_array_equal(found["r2star"].sel(scan="sub-01").isel(statistic=slice(10)), values[1])
    assert np.isnan(found["r2star"].sel(scan="sub-01").isel(statistic=slice(10, None))).all()
    np.testing.assert_array_equal(found["chi_dia"].sel(scan="sub-02"), now[COORDINATES["map"].index("chi_dia")])
    assert np.isnan(found["chi_dia"].sel(scan="sub-01")).all()


def test_region_values_stand_under_their_labels(store: CohortStore, regions: Regions) -> None:
    one = regions("sub-01_ses-1", (0, 1, 2), LABELS)
    two = regions("sub-02", (0, 2), LABELS)
    found = store.dataset()
    assert dict(found.sizes) == {"scan": 2, "region": 3, "statistic": STATISTICS}
    assert list(found["scan"].values) == ["sub-01_ses-1", "sub-02"]
    assert list(found["region"].values) == ["whole_brain", "caudate_left", "putamen_left"]
    assert tuple(found["statistic"].values) == COORDINATES["statistic"]
    assert list(found["subject"].values) == ["sub-01", "sub-02"]
    assert list(found["session"].values) == ["ses-1", ""]
    assert (found["chi"].attrs["units"], found["r2star"].attrs["units"]) == ("ppm", "1/s")
    place = {"scan": "sub-01_ses-1", "region": "putamen_left", "statistic": "mean"}
    assert float(found["chi"].sel(place)) == one[0, 2, 2]
    np.testing.assert_array_equal(found["r2star"].sel(scan="sub-01_ses-1"), one[1])
    np.testing.assert_array_equal(found["chi"].sel(scan="sub-02", region=["whole_brain", "putamen_left"]), two[0])
    assert np.isnan(found["chi"].sel(scan="sub-02", region="caudate_left")).all()


def test_one_name_is_one_region_whatever_its_number(store: CohortStore, regions: Regions) -> None:
    one = regions("sub-01", (0, 1), {"1": "putamen_left"})
    two = regions("sub-02", (0, 12), {"12": "putamen_left"})
    found = store.dataset()["chi"].sel(region="putamen_left")
    np.testing.assert_array_equal(found, np.stack([one[0, 1], two[0, 1]]))


def test_labels_are_found_in_the_commits_if_the_index_lacks_them(store: CohortStore, regions: Regions) -> None:
    values = regions("sub-01", (0, 2, 7), LABELS, facts=False)
    found = store.dataset()
    assert list(found["region"].values) == ["whole_brain", "putamen_left", "label_7"]
    np.testing.assert_array_equal(found["chi"].sel(scan="sub-01"), values[0])


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0], {}, ["whole_brain"]),
        ([0, 1, 2], {"1": "a", "2": "b"}, ["whole_brain", "a", "b"]),
        ([0, 5], {}, ["whole_brain", "label_5"]),
        ([0, 1, 2, 3], {"1": "a", "2": "a", "3": "a"}, ["whole_brain", "a", "a_2", "a_3"]),
        ([0, 1], {"1": "whole_brain"}, ["whole_brain", "whole_brain_1"]),
    ],
)
def test_every_label_has_a_name_of_its_own(labels: list[int], names: dict[str, str], expected: list[str]) -> None:
    assert region_names(labels, names) == tuple(zip(labels, expected, strict=True))


def test_opening_a_cohort_reads_no_arrays_and_no_commits(
    store: CohortStore, regions: Regions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        regions(f"sub-{n}", (0, 1), LABELS)
    monkeypatch.setattr(datasets_module, "_BATCH", 2)
    asked: list[str] = []
    get = store._files.get
    monkeypatch.setattr(store._files, "get", lambda key: asked.append(key) or get(key))
    found = store.dataset()
    assert [key for key in asked if not key.startswith("index/")] == ["pipeline.json"]
    assert found["chi"].chunks == ((2, 2, 1), (2,), (STATISTICS,))
    found["chi"].isel(scan=[3]).compute(scheduler="sync")
    assert {key.split("/")[1] for key in asked if key.startswith("scans/")} == {"sub-2", "sub-3"}


@pytest.mark.parametrize("scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_dataset_can_be_computed_by_others(store: CohortStore, regions: Regions, scheduler: str) -> None:
    values = regions("sub-01", (0, 1), LABELS)
    found = store.dataset()["chi"].compute(scheduler=scheduler, num_workers=1)
    np.testing.assert_array_equal(found[0], values[0])


def test_a_cohort_without_results_opens_empty(store: CohortStore) -> None:
    found = store.dataset().load()
    assert dict(found.sizes) == {"scan": 0, "region": 1, "statistic": STATISTICS}


def test_scans_that_are_not_done_are_left_out(store: CohortStore, regions: Regions) -> None:
    regions("sub-01", (0, 1), LABELS)
    regions("sub-02", (0, 1), LABELS)
    store.record([{"scan": "sub-02", "node": "regions", "state": "failed", "reason": "out of memory"}])
    assert list(store.dataset()["scan"].values) == ["sub-01"]


def test_damage_is_named_when_it_is_computed(store: CohortStore, regions: Regions) -> None:
    regions("sub-01", (0, 1), LABELS)
    commit = store.commit(ScanKey.parse("sub-01"), "regions", KEY)
    assert commit is not None
    path = chunks_of(store, commit)[1]
    flip(path, path.stat().st_size // 2)
    found = store.dataset()
    with pytest.raises(DamageError, match=f"sub-01 regions: {path}"):
        found.load()
    (store.place.folder / "scans" / "sub-01" / "regions" / KEY / "COMMIT.json").unlink()
    with pytest.raises(DamageError, match="sub-01 regions: its commit is gone"):
        found.load()


def row_of(**told: float) -> NDArray[np.float64]:
    """The statistics of one region, those not told zero."""
    return np.array([told.get(name, 0.0) for name in COORDINATES["statistic"]])


@pytest.fixture
def referred(store: CohortStore, write: Write) -> CohortStore:
    """A scan of two regions and fluid, and one that has neither fluid nor the second region."""
    one = np.full((len(COORDINATES["map"]), 3, STATISTICS), np.nan)
    one[0, 0] = row_of(n=100, volume_mm3=200, mean=0.001, sd=0.05, median=0.002, mass=0.2)
    one[0, 1] = row_of(n=3, volume_mm3=6, mean=0.06, sd=0.01, median=0.05, mad=0.008, mass=0.36, p05=0.04, coverage=1)
    one[0, 2] = row_of(n=1, volume_mm3=2, mean=-0.02, sd=np.nan, median=-0.02, mass=-0.04)
    one[1] = 20.0
    csf = np.array([0.015, 0.004, 50.0])
    for name, labels, arrays in (
        ("sub-01", [0, 1, 2], {"region_values": one, "csf_reference": csf}),
        ("sub-02", [0, 1], {"region_values": one[:, :2], "csf_reference": np.array([np.nan, np.nan, 0.0])}),
    ):
        scan = ScanKey.parse(name)
        chi = {"chi": np.zeros((2, 2, 2), np.float32)}
        made = [
            write(chi, scan=scan, node="ingest", key=INGEST_KEY, attributes={"labels": LABELS}),
            write(
                {"region_labels": np.array(labels), **arrays},
                scan=scan,
                node="regions",
                attributes={"facts": {"maps": ["chi", "r2star"]}},
            ),
        ]
        store.record([commit.row() for commit in made])
    return store


def test_a_reference_moves_values_and_mass_and_leaves_counts_and_spreads(referred: CohortStore) -> None:
    stored, found = (referred.dataset(reference).sel(scan="sub-01").compute() for reference in (None, "csf"))
    assert set(found.data_vars) == {"chi", "r2star"}
    assert (stored["chi"].attrs.get("reference"), found["chi"].attrs["reference"]) == (None, "csf")
    told = found["chi"].sel(region="caudate_left").to_series()
    moved = {"mean": 0.045, "median": 0.035, "p05": 0.025, "mass": 0.36 - 0.015 * 6, "trimmed_mean": -0.015}
    kept = {"n": 3, "volume_mm3": 6, "sd": 0.01, "mad": 0.008, "coverage": 1, "core_n": 0, "weighted_volume_mm3": 0}
    assert told[list(moved)].to_dict() == pytest.approx(moved, rel=1e-12)
    assert told[list(kept)].to_dict() == kept
    xr.testing.assert_identical(found["r2star"], stored["r2star"])


def test_a_reference_of_several_regions_is_that_of_their_voxels_together(referred: CohortStore) -> None:
    """Three voxels of 0.06 and one of -0.02 ppm have a mean of 0.04."""
    found = referred.dataset("caudate_left + putamen_left")["chi"].sel(statistic="mean").compute()
    assert found.sel(scan="sub-01", region="caudate_left").item() == pytest.approx(0.02)
    assert found.sel(scan="sub-02", region="caudate_left").item() == pytest.approx(0.0)  # it has the one only


def test_a_scan_without_the_reference_has_no_chi(referred: CohortStore) -> None:
    for reference in ("csf", "putamen_left"):
        found = referred.dataset(reference)["chi"].sel(scan="sub-02", region="caudate_left").compute()
        assert found.sel(statistic=["n", "sd"]).values.tolist() == [3, 0.01]
        assert np.isnan(found.sel(statistic=["mean", "median", "mass"])).all()


def test_an_unknown_reference_is_refused_with_near_names(referred: CohortStore) -> None:
    for name, words in (
        ("putamen_lef", "did you mean putamen_left"),
        ("CSF", "did you mean"),
        ("csf+x", "by itself|no region 'x'"),
    ):
        with pytest.raises(StoreError, match=words):
            referred.dataset(name)


def test_the_moments_of_every_reference_can_be_looked_at(referred: CohortStore) -> None:
    found = referred.references()
    assert dask.is_dask_collection(found.data)
    assert found["reference"].values.tolist() == ["csf", "whole_brain", "caudate_left", "putamen_left"]
    moments = found.compute().sel(scan="sub-01")
    assert moments.sel(reference="csf").values.tolist() == [0.015, 0.004, 50.0]
    assert moments.sel(reference="whole_brain").values.tolist() == pytest.approx([0.001, 0.05, 100.0])
    assert moments.sel(reference="putamen_left").values[[0, 2]].tolist() == [-0.02, 1.0]
    assert found.compute().sel(scan="sub-02", reference="putamen_left", moment="n").item() == 0


# One scan.


@pytest.fixture
def maps(store: CohortStore, scan: ScanKey, write: Write, arrays: dict[str, NDArray[Any]]) -> dict[str, Commit]:
    rng = np.random.default_rng(1)
    chi = {"chi": rng.normal(size=(6, 5, 4)).astype(np.float32), "chi_reference": np.zeros(3)}
    made = {
        "ingest": write(arrays, node="ingest", key=INGEST_KEY, attributes={"header": HEADER, "labels": LABELS}),
        "field": write({"mask": np.ones((6, 5, 4), bool)}, node="field"),
        "maps": write(chi, node="maps"),
        "regions": write(
            {"region_labels": np.array([0]), "region_values": np.zeros((len(COORDINATES["map"]), 1, STATISTICS))},
            node="regions",
        ),
    }
    store.record([commit.row() for commit in made.values()])
    return made


def test_a_scan_opens_lazily_with_its_geometry(
    store: CohortStore, scan: ScanKey, maps: dict[str, Commit], arrays: dict[str, NDArray[Any]]
) -> None:
    found = store.scan("sub-01_ses-1")
    assert isinstance(found, xr.Dataset)
    assert set(found.data_vars) == {"phase", "mask", "dseg", "chi"}
    assert found["phase"].dims == ("echo", "x", "y", "z")
    assert found["phase"].chunks == ((1, 1, 1), (6,), (5,), (4,))
    assert found["chi"].dims == ("x", "y", "z")
    assert all(dask.is_dask_collection(found[name].data) for name in found.data_vars)
    assert {name: found[name].attrs["units"] for name in found.data_vars} == {
        "phase": "rad", "mask": "1", "dseg": "1", "chi": "ppm",
    }  # fmt: skip
    np.testing.assert_array_equal(found["te"], HEADER["te"])
    assert found["te"].dims == ("echo",)
    assert found["te"].attrs["units"] == "s"
    assert found.attrs["affine"] == HEADER["affine"]
    assert (found.attrs["b0"], found.attrs["voxel_size"]) == (3.0, [1.0, 1.0, 2.0])
    assert (found.attrs["scan"], found.attrs["subject"], found.attrs["session"]) == (str(scan), "sub-01", "ses-1")
    np.testing.assert_array_equal(found["phase"], arrays["phase"])
    xr.testing.assert_identical(found.load(), store.scan(scan).load())


def test_the_mask_of_the_pipeline_hides_the_one_given(store: CohortStore, maps: dict[str, Commit]) -> None:
    assert store.scan("sub-01_ses-1")["mask"].values.all()  # ingest's is empty, the pipeline's is full


def test_reading_one_echo_leaves_the_others_alone(
    store: CohortStore, maps: dict[str, Commit], arrays: dict[str, NDArray[Any]]
) -> None:
    folder = store.place.folder / maps["ingest"].folder / "phase"
    (folder / "c.0.0.0.0").unlink()
    found = store.scan("sub-01_ses-1")["phase"]
    np.testing.assert_array_equal(found.isel(echo=2).compute(), arrays["phase"][2])
    with pytest.raises(DamageError, match=r"sub-01_ses-1 ingest: .*c.0.0.0.0 is missing"):
        found.load()


def test_a_scan_that_is_not_in_the_index_is_asked_for(
    store: CohortStore, write: Write, arrays: dict[str, NDArray[Any]]
) -> None:
    write(arrays, node="ingest", key=INGEST_KEY, attributes={})
    assert set(store.scan("sub-01_ses-1").data_vars) == set(arrays)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sub-01", "nothing of a scan sub-01; near it are sub-01_ses-1"),
        ("sub-01_ses-2", "near it are sub-01_ses-1"),
        ("sub-99_run-5_T2starw", "it has 1 scans, see `qsm-dask status`"),
        ("../sub-01_ses-1", "is not the name of a scan.*near it are sub-01_ses-1"),
    ],
)
def test_an_unknown_scan_is_refused_with_near_names(
    store: CohortStore, maps: dict[str, Commit], name: str, words: str
) -> None:
    with pytest.raises(StoreError, match=words):
        store.scan(name)


def test_an_empty_cohort_says_so(store: CohortStore) -> None:
    with pytest.raises(StoreError, match="it has no scans yet"):
        store.scan("sub-01")
