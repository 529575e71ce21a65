import numpy as np
import pytest

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.io.acquisition import FileRef, Map
from qsm_dask.io.bids import index
from qsm_dask.io.derivatives import attach, parse
from qsm_dask.io.filters import Filters
from qsm_dask.io.maps import read_map
from qsm_dask.io.nifti import read_header
from qsm_dask.io.segmentations import read_label_table
from qsm_dask.io.sidecars import resolve
from tests.io.bids_tree import AFFINE, SHAPE, dataset, scan, write_image, write_json

B0 = 7.0


@pytest.fixture
def root(tmp_path):
    return dataset(tmp_path / "bids")


def derived(folder, name, **metadata):
    """An empty image file and its sidecar in `folder/sub-…/[ses-…/]anat`."""
    parts = [p for p in name.split("_") if p.startswith(("sub-", "ses-"))]
    path = folder.joinpath(*parts, "fmap" if "fieldmap" in name else "anat", f"{name}.nii.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    if metadata:
        write_json(path.with_name(f"{name}.json"), metadata)


def matched(root, *specs, filters=None):
    """What each scan was given: quantity to file name."""
    found = attach(index(root).acquisitions, parse(specs, root), filters)
    return {str(a): {m.quantity: m.file.label.rpartition("/")[2] for m in a.maps} for a in found}, found


def test_specs(tmp_path, root):
    folder = tmp_path / "a:b"
    folder.mkdir()
    (default,) = parse([str(folder)], root)
    assert dict(default.quantities) == {"dseg": None, "mask": None}
    assert not default.named
    (named,) = parse([f"{folder}:chi=PPB, local_field,mask"], root)
    assert dict(named.quantities) == {"chi": "ppb", "local_field": None, "mask": None}
    assert str(named) == "a:b:chi=ppb,local_field,mask"
    inside = root / "derivatives/x"
    inside.mkdir(parents=True)
    assert parse([str(inside)], root)[0].prefix == "derivatives/x"


def test_folders_of_one_name_are_told_apart(tmp_path, root):
    for place in ("one", "two"):
        (tmp_path / place / "maps").mkdir(parents=True)
    found = parse([str(tmp_path / "one/maps"), str(tmp_path / "two/maps")], root)
    assert [source.prefix for source in found] == ["maps", "maps'"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}/absent", "there is no folder .*absent"),
        ("{}:chimap", "'chimap' cannot be ingested; take any of dseg, probseg, mask, chi, local_field, r2"),
        ("{}:chi=Hz", "chi cannot have the units 'Hz'; state any of ppm, ppb"),
        ("{}:mask=ppm", "mask cannot have the units 'ppm'; state none"),
        ("{}:", "cannot be ingested"),
    ],
)
def test_wrong_specs_are_refused(tmp_path, root, spec, message):
    with pytest.raises(ConfigError, match=message):
        parse([spec.format(tmp_path)], root)


def test_maps_are_matched_by_subject_session_and_whatever_else_they_name(tmp_path, root):
    for entities in ("sub-01_ses-1_run-01", "sub-01_ses-1_run-02", "sub-01_ses-2", "sub-02_ses-1"):
        scan(root, entities)
    out = tmp_path / "out"
    derived(out, "sub-01_dseg")
    derived(out, "sub-01_ses-1_dseg")
    derived(out, "sub-01_ses-1_run-2_dseg")
    derived(out, "sub-01_ses-2_acq-other_mask")
    derived(out, "sub-03_dseg")
    found, _ = matched(root, str(out))
    assert found == {
        "sub-01_ses-1_run-01": {"dseg": "sub-01_ses-1_dseg.nii.gz"},
        "sub-01_ses-1_run-02": {"dseg": "sub-01_ses-1_run-2_dseg.nii.gz"},
        "sub-01_ses-2": {"dseg": "sub-01_dseg.nii.gz"},
        "sub-02_ses-1": {},
    }


def test_scan_space_whole_brain_and_plain_maps_come_first(tmp_path, root):
    scan(root)
    out = tmp_path / "out"
    for name in (
        "sub-01_space-MNI152_dseg",
        "sub-01_dseg",
        "sub-01_desc-brain_mask",
        "sub-01_desc-strong_mask",
        "sub-01_mask",
        "sub-01_label-WM_mask",
        "sub-01_Chimap",
        "sub-01_desc-csf_Chimap",
        "sub-01_desc-paramagnetic_Chimap",
        "sub-01_desc-local_fieldmap",
        "sub-01_fieldmap",
    ):
        derived(out, name)
    found, _ = matched(root, f"{out}:dseg,mask,chi,local_field")
    assert found["sub-01"] == {
        "dseg": "sub-01_dseg.nii.gz",
        "mask": "sub-01_desc-brain_mask.nii.gz",
        "chi": "sub-01_Chimap.nii.gz",
        "local_field": "sub-01_desc-local_fieldmap.nii.gz",
    }


def test_another_space_is_taken_only_where_there_is_nothing_else(tmp_path, root):
    scan(root, "sub-01_ses-1")
    derived(tmp_path / "out", "sub-01_dseg")
    derived(tmp_path / "out", "sub-01_ses-1_space-MNI152_dseg")
    derived(tmp_path / "out", "sub-01_ses-1_space-MNI152_mask")
    assert matched(root, str(tmp_path / "out"))[0]["sub-01_ses-1"] == {
        "dseg": "sub-01_dseg.nii.gz",
        "mask": "sub-01_ses-1_space-MNI152_mask.nii.gz",
    }


def test_only_what_is_named_enters(tmp_path, root):
    scan(root)
    derived(tmp_path / "out", "sub-01_dseg")
    derived(tmp_path / "out", "sub-01_Chimap")
    assert matched(root, str(tmp_path / "out"))[0]["sub-01"] == {"dseg": "sub-01_dseg.nii.gz"}
    assert matched(root, f"{tmp_path / 'out'}:chi")[0]["sub-01"] == {"chi": "sub-01_Chimap.nii.gz"}


def test_two_maps_that_fit_alike_are_a_problem_that_a_filter_file_solves(tmp_path, root):
    scan(root)
    out = tmp_path / "out"
    derived(out, "sub-01_seg-a_dseg")
    derived(out, "sub-01_seg-b_dseg")
    _, (acquisition,) = matched(root, str(out))
    assert acquisition.problem == (
        "two files claim dseg: out/sub-01/anat/sub-01_seg-a_dseg.nii.gz and "
        "out/sub-01/anat/sub-01_seg-b_dseg.nii.gz; choose one with a filter file"
    )
    found, _ = matched(root, str(out), filters=Filters({"dseg": {"seg": "b"}}))
    assert found["sub-01"] == {"dseg": "sub-01_seg-b_dseg.nii.gz"}


def test_the_folder_named_first_wins_and_the_other_is_noted(tmp_path, root):
    scan(root)
    derived(tmp_path / "one", "sub-01_mask")
    derived(tmp_path / "two", "sub-01_mask")
    derived(tmp_path / "two", "sub-01_dseg")
    _, (acquisition,) = matched(root, str(tmp_path / "one"), str(tmp_path / "two"))
    assert [m.file.label.partition("/")[0] for m in acquisition.maps] == ["one", "two"]
    assert acquisition.notes == ("mask of two left aside (a folder named before has it)",)


def test_a_map_that_one_scan_lacks_is_noted(tmp_path, root):
    scan(root, "sub-01")
    scan(root, "sub-02")
    derived(tmp_path / "out", "sub-01_Chimap")
    _, (first, second) = matched(root, f"{tmp_path / 'out'}:chi")
    assert first.notes == ()
    assert second.notes == ("no chi in out",)


def test_a_folder_that_has_nothing_for_anybody_is_an_error(tmp_path, root):
    scan(root)
    out = tmp_path / "out"
    derived(out, "sub-02_dseg")
    derived(out, "sub-01_dseg")
    with pytest.raises(InputError, match=r"no chi in it belongs to any scan \(looked for .*_Chimap"):
        matched(root, f"{out}:chi,dseg")
    with pytest.raises(InputError, match=r"no local_field .*with desc-local"):
        matched(root, f"{out}:local_field")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no dseg or mask in it belongs to any scan"):
        matched(root, str(tmp_path / "empty"))


def test_label_tables_are_found_beside_or_up_the_tree(tmp_path, root):
    scan(root, "sub-01")
    scan(root, "sub-02")
    out = tmp_path / "out"
    derived(out, "sub-01_seg-x_dseg")
    derived(out, "sub-02_seg-x_dseg")
    (out / "seg-x_dseg.tsv").write_text("index\tname\n1\ta\n")
    (out / "seg-y_dseg.tsv").write_text("index\tname\n1\tb\n")
    (out / "sub-02/anat/sub-02_seg-x_dseg.tsv").write_text("index\tname\n1\tc\n")
    _, found = matched(root, str(out))
    assert [a.maps[0].table.label for a in found] == ["out/seg-x_dseg.tsv", "out/sub-02/anat/sub-02_seg-x_dseg.tsv"]


def read_one(tmp_path, quantity, stored, *, units=None, affine=AFFINE, table=None, **metadata):
    write_image(tmp_path / "map.nii.gz", stored, affine=affine)
    write_image(tmp_path / "scan.nii.gz", np.ones(SHAPE, np.float32))
    write_json(tmp_path / "map.json", metadata)
    if table is not None:
        (tmp_path / "dseg.tsv").write_text(table)
    sidecar = FileRef("map.json", str(tmp_path / "map.json"))
    item = Map(
        quantity,
        FileRef("map.nii.gz", str(tmp_path / "map.nii.gz")),
        (sidecar,),
        FileRef("dseg.tsv", str(tmp_path / "dseg.tsv")) if table is not None else None,
        units,
    )
    return read_map(item, resolve([sidecar]), read_header(tmp_path / "scan.nii.gz", "scan.nii.gz").grid, B0)


# One ppm, in every unit, by hand at 7 T: 42.577 * 7 = 298.039 Hz.
ONE_PPM = {
    ("chi", "ppm"): 1.0,
    ("chi", "ppb"): 1000.0,
    ("local_field", "ppm"): 1.0,
    ("local_field", "Hz"): 298.039,
    ("local_field", "rad/s"): 1872.6342,
    ("local_field", "T"): 7e-6,
}


@pytest.mark.parametrize(("quantity", "units"), ONE_PPM)
def test_maps_are_converted_to_ppm_by_their_units(tmp_path, quantity, units):
    stored = np.full(SHAPE, ONE_PPM[quantity, units], np.float32)
    stated = read_one(tmp_path, quantity, stored, Units=units)
    np.testing.assert_allclose(stated.arrays[quantity], 1.0, rtol=1e-6)
    assert stated.source == {"from": "derivatives", "files": ["map.nii.gz"], "units": units}
    np.testing.assert_allclose(read_one(tmp_path, quantity, stored, units=units).arrays[quantity], 1.0, rtol=1e-6)


@pytest.mark.parametrize(("units", "stored"), [("1/s", 20.0), ("s", 0.05), ("ms", 50.0)])
def test_relaxation_comes_as_rate_or_as_time(tmp_path, units, stored):
    image = np.full(SHAPE, stored, np.float32)
    image[0] = 0  # not measured
    found = read_one(tmp_path, "r2", image, Units=units).arrays["r2"]
    np.testing.assert_allclose(found[1:], 20.0, rtol=1e-6)
    assert not found[0].any()


def test_a_rate_is_preferred_to_a_time_and_either_is_found(tmp_path, root):
    scan(root, "sub-01")
    scan(root, "sub-02")
    out = tmp_path / "out"
    derived(out, "sub-01_R2map")
    derived(out, "sub-01_T2map")
    derived(out, "sub-02_T2map")
    assert matched(root, f"{out}:r2")[0] == {
        "sub-01": {"r2": "sub-01_R2map.nii.gz"},
        "sub-02": {"r2": "sub-02_T2map.nii.gz"},
    }


@pytest.mark.parametrize(
    ("quantity", "given", "sidecar", "message"),
    [
        ("chi", None, {}, r"its sidecar has no Units; add them \(ppm or ppb\), or state them as in .*DIR:chi=ppm"),
        ("local_field", None, {}, r"no Units; add them \(ppm or Hz or rad/s or T\)"),
        ("chi", None, {"Units": "Hz"}, "Units is 'Hz'; a chi comes in ppm or ppb"),
        ("chi", "ppb", {"Units": "ppm"}, "Units is ppm, but --derivatives says ppb"),
    ],
)
def test_units_are_never_guessed(tmp_path, quantity, given, sidecar, message):
    with pytest.raises(InputError, match=message):
        read_one(tmp_path, quantity, np.ones(SHAPE, np.float32), units=given, **sidecar)


def test_a_map_on_another_grid_is_refused(tmp_path):
    other = AFFINE.copy()
    other[2, 3] += 1
    with pytest.raises(InputError, match="resample it onto the scan's grid, or leave chi out"):
        read_one(tmp_path, "chi", np.ones((6, 5, 5), np.float32), units="ppm")
    with pytest.raises(InputError, match=r"affine\) differs from scan.nii.gz by up to 1 mm; resample"):
        read_one(tmp_path, "chi", np.ones(SHAPE, np.float32), affine=other, units="ppm")
    with pytest.raises(InputError, match="has 2 volumes"):
        read_one(tmp_path, "mask", np.ones((*SHAPE, 2), np.uint8))


def test_masks(tmp_path):
    stored = np.zeros(SHAPE, np.float32)
    stored[2:4] = 1
    mask = read_one(tmp_path, "mask", stored).arrays["mask"]
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, stored == 1)
    with pytest.raises(InputError, match="the mask is empty"):
        read_one(tmp_path, "mask", 0 * stored)
    with pytest.raises(InputError, match="the mask has fractions; threshold it"):
        read_one(tmp_path, "mask", stored / 2)


def test_label_images_with_their_table(tmp_path):
    stored = np.zeros(SHAPE, np.float32)
    stored[1], stored[2], stored[3] = 11, 50, 7
    table = (
        "index\tname\tcolor\n0\tbackground\t#000\n11\tcaudate_left\t#f00\n50\tcaudate_right\t#0f0\n99\tabsent\t#00f\n"
    )
    found = read_one(tmp_path, "dseg", stored, table=table)
    assert found.arrays["dseg"].dtype == np.int32
    np.testing.assert_array_equal(found.arrays["dseg"], stored)
    assert found.labels == {7: "label_7", 11: "caudate_left", 50: "caudate_right", 99: "absent"}
    assert found.warnings == ("dseg.tsv: has no name for label 7; named label_<number>",)
    assert found.source["files"] == ["map.nii.gz", "dseg.tsv"]


def test_a_label_image_without_table_names_its_numbers(tmp_path):
    found = read_one(tmp_path, "dseg", np.full(SHAPE, 3, np.int16))
    assert found.labels == {3: "label_3"}
    assert "no dseg.tsv" in found.warnings[0]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.full(SHAPE, 1.5), "whole numbers, this one has fractions; was it interpolated"),
        (np.full(SHAPE, -1.0), "labels must lie between 0 and"),
        (np.full(SHAPE, 2.0**24, np.float32), "labels must lie between 0 and 16777215 .stored as float32"),
        (np.full(SHAPE, 2.0**31), "labels must lie between 0 and 2147483647, these reach"),
        (np.zeros(SHAPE), "the label image is empty"),
    ],
)
def test_what_is_no_label_image_is_refused(tmp_path, stored, message):
    with pytest.raises(InputError, match=message):
        read_one(tmp_path, "dseg", stored)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("index\tname\n1\tputamen\n2\tputamen\n3\tn/a\n", {1: "putamen_1", 2: "putamen_2", 3: "label_3"}),
        ("name\tindex\nGPe\t4\n", {4: "GPe"}),
    ],
)
def test_label_tables(tmp_path, table, expected):
    (tmp_path / "dseg.tsv").write_text(table)
    assert read_label_table(FileRef("dseg.tsv", str(tmp_path / "dseg.tsv"))) == expected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index,name\n1,a\n", "tab-separated table with the columns index and name"),
        ("", "tab-separated table"),
        ("index\tname\none\ta\n", "index 'one' is not a whole number"),
        ("index\tname\n1\ta\n1\tb\n", "index 1 stands there twice"),
    ],
)
def test_wrong_label_tables_are_refused(tmp_path, table, message):
    (tmp_path / "dseg.tsv").write_text(table)
    with pytest.raises(InputError, match=message):
        read_label_table(FileRef("dseg.tsv", str(tmp_path / "dseg.tsv")))
