"""Label images and probabilities of other programs come onto the scan's grid where they belong, or are refused."""

import gzip
import json

import nibabel as nib
import nibabel.processing
import numpy as np
import pytest
from scipy import ndimage

from qsm_dask.errors import InputError
from qsm_dask.io import freesurfer
from qsm_dask.io.acquisition import FileRef, Map
from qsm_dask.io.grid import Grid
from qsm_dask.io.maps import read_map
from qsm_dask.io.nifti import read_header
from qsm_dask.io.segmentations import numbered_apart
from tests.io.transform_files import rigid, rotation, write_fsl, write_itk, write_lta

SCAN_SHAPE = (44, 48, 14)
SCAN = np.eye(4)
SCAN[:3, :3] = rotation((4.0, -9.0, 32.0)) * (0.8, 0.8, 3.0)
SCAN[:3, 3] = -SCAN[:3, :3] @ (np.array(SCAN_SHAPE) / 2)

SEG_SHAPE = (56, 60, 64)
SEG = np.array([[-1.0, 0, 0, 28], [0, 0, 1, -32], [0, -1, 0, 30], [0, 0, 0, 1]])
"""FreeSurfer's conformed order: x from right to left, y downwards, z to the front."""

BALLS = {
    12: ((-9.0, 2.0, 1.0), 5.5),
    51: ((9.0, 2.0, 1.0), 5.5),
    10: ((-4.0, -8.0, -2.0), 4.0),
    16: ((1.0, 9, -9), 3.0),
}
"""Labels, centres [mm; x to the right] and radii."""


def world(shape, affine):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    return np.tensordot(affine[:3, :3], index, axes=1) + affine[:3, 3].reshape(3, 1, 1, 1)


def balls(shape, affine, dtype=np.int32):
    at, found = world(shape, affine), np.zeros(shape, dtype)
    for label, (centre, radius) in BALLS.items():
        found[((at - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0) < radius**2] = label
    return found


def shares(labels, affine, scan_shape, scan, move=None, points=(1, 1, 3)):
    """By SciPy: the share of each label in each voxel of the scan, linear, at that many points along its axes."""
    values = np.unique(labels)
    total = np.zeros((values.size, *scan_shape))
    steps = [(np.arange(n) + 0.5) / n - 0.5 for n in points]
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in scan_shape), indexing="ij"))
    to_image = np.linalg.inv(affine) @ (np.eye(4) if move is None else move) @ scan
    for step in np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3):
        place = index + step.reshape(3, 1, 1, 1)
        at = np.tensordot(to_image[:3, :3], place, axes=1) + to_image[:3, 3].reshape(3, 1, 1, 1)
        for number, value in enumerate(values):
            total[number] += ndimage.map_coordinates(
                (labels == value).astype(float), at, order=1, cval=float(value == 0)
            )
    return values, total / np.prod(points)


def assert_is_majority(found, labels, affine, scan_shape=SCAN_SHAPE, scan=SCAN, **options):
    values, total = shares(labels, affine, scan_shape, scan, **options)
    ordered = np.sort(total, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-4
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(found[clear], values[np.argmax(total, axis=0)][clear])
    assert all((found == label).any() for label in np.unique(labels))


def save(path, values, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = nib.freesurfer.MGHImage if path.name.endswith(".mgz") else nib.Nifti1Image
    nib.save(kind(values, affine), path)
    return path


def grid(shape=SCAN_SHAPE, affine=SCAN, doubt=""):
    return Grid("scan.nii.gz", shape, affine, doubt)


def read(path, quantity="dseg", *, scan=None, magnitude=None, transform=None, others=(), table=None, **about):
    def reference(one):
        return None if one is None else FileRef(f"maps/{one.name}", str(one))

    item = Map(
        quantity,
        reference(path),
        (),
        reference(table),
        others=tuple(map(reference, others)),
        transform=reference(transform),
        any_session=about.pop("any_session", False),
    )
    return read_map(item, about, scan or grid(), 3.0, magnitude)


@pytest.mark.parametrize("name", ["aseg.mgz", "sub-01_desc-aseg_dseg.nii.gz"])
def test_a_conformed_aseg_lands_on_an_oblique_scan_as_scipy_puts_it(tmp_path, name):
    labels = balls(SEG_SHAPE, SEG)
    found = read(save(tmp_path / name, labels, SEG))
    assert found.arrays["dseg"].dtype == np.int32
    assert_is_majority(found.arrays["dseg"], labels, SEG)
    assert found.labels == {10: "Left-Thalamus", 12: "Left-Putamen", 16: "Brain-Stem", 51: "Right-Putamen"}
    assert found.source["names"] == "FreeSurferColorLUT"
    assert found.source["resampled_by"] == "headers"
    assert found.source["files"] == [f"maps/{name}"]
    assert found.source["inside"] > 0.95
    assert len(found.source["digest"]) == 32
    assert not found.warnings


def test_left_stays_left_and_right_stays_right(tmp_path):
    found = read(save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)).arrays["dseg"]
    at = world(SCAN_SHAPE, SCAN)
    for label, (centre, _) in BALLS.items():
        np.testing.assert_allclose(at[:, found == label].mean(axis=1), centre, atol=0.5)


def test_another_order_of_axes_alone_gives_the_same_voxels_as_nibabel(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2**31, SEG_SHAPE).astype(np.int32)
    image = nib.as_closest_canonical(nib.Nifti1Image(labels, SEG))
    scan = grid(image.shape, image.affine)
    found = read(save(tmp_path / "x.mgz", labels, SEG), scan=scan).arrays["dseg"]
    np.testing.assert_array_equal(found[1:-1, 1:-1, 1:-1], np.asarray(image.dataobj)[1:-1, 1:-1, 1:-1])


@pytest.mark.parametrize(
    "move", [rigid((0, 0, 0), (6.0, -4.0, 3.0)), rigid((12.0, -7.0, 20.0), (3.0, 5.0, -2.0))], ids=["shift", "rotation"]
)
@pytest.mark.parametrize("kind", ["itk", "itk.mat", "lta", "lta-back", "lta-voxels", "fsl"])
def test_a_transform_of_each_program_moves_labels_as_its_matrix_says(tmp_path, move, kind):
    labels = balls(SEG_SHAPE, SEG)
    scan, image = (SCAN_SHAPE, SCAN), (SEG_SHAPE, SEG)
    path = tmp_path / {"itk": "x.txt", "itk.mat": "x.mat", "fsl": "x.mat"}.get(kind, "x.lta")
    back = np.linalg.inv(move)
    if kind == "itk":
        write_itk(path, move)
    elif kind == "itk.mat":
        sitk = pytest.importorskip("SimpleITK")
        write_itk(tmp_path / "text.txt", move)
        sitk.WriteTransform(sitk.ReadTransform(str(tmp_path / "text.txt")), str(path))
    elif kind == "lta":
        write_lta(path, back, image, scan)
    elif kind == "lta-back":
        write_lta(path, move, scan, image)
    elif kind == "lta-voxels":
        write_lta(path, np.linalg.inv(SCAN) @ back @ SEG, image, scan, kind=0)
    else:
        write_fsl(path, move, scan, image)
    found = read(save(tmp_path / "aseg.mgz", labels, SEG), transform=path)
    assert_is_majority(found.arrays["dseg"], labels, SEG, move=move)
    assert found.source["files"] == ["maps/aseg.mgz", f"maps/{path.name}"]
    expected = {"itk": "ITK", "itk.mat": "ITK", "lta-back": "LTA, inverted", "fsl": "FSL"}
    assert found.source["resampled_by"] == expected.get(kind, "LTA")


def test_nitransforms_own_files_are_read_as_it_means_them(tmp_path):
    linear = pytest.importorskip("nitransforms.linear")
    move, labels = rigid((5.0, 10.0, -15.0), (2.0, -3.0, 4.0)), balls(SEG_SHAPE, SEG)
    scan = nib.Nifti1Image(np.zeros(SCAN_SHAPE, np.uint8), SCAN)
    transform, moving = linear.Affine(move, reference=scan), nib.Nifti1Image(labels, SEG)
    path = save(tmp_path / "aseg.mgz", labels, SEG)
    for name, kind in (("x.txt", "itk"), ("x.mat", "fsl")):
        transform.to_filename(tmp_path / name, fmt=kind, moving=moving)
        found = read(path, transform=tmp_path / name).arrays["dseg"]
        assert_is_majority(found, labels, SEG, move=move)


def test_deformations_and_composites_of_itk_move_labels_as_itk_does(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    pytest.importorskip("nitransforms")
    rng = np.random.default_rng(3)
    field = sitk.GetImageFromArray(
        np.stack([ndimage.gaussian_filter(rng.normal(0, 60, (16, 18, 20)), 3) for _ in range(3)], axis=-1),
        isVector=True,
    )
    field.SetOrigin((-32.0, -30.0, -28.0))
    field.SetSpacing((3.3, 3.6, 3.9))
    sitk.WriteImage(field, str(tmp_path / "warp.nii.gz"))
    write_itk(tmp_path / "affine.txt", rigid((3.0, 8.0, -10.0), (2.0, 1.0, -3.0)))
    warp = sitk.DisplacementFieldTransform(sitk.Image(field))
    both = sitk.CompositeTransform([sitk.ReadTransform(str(tmp_path / "affine.txt")), warp])
    sitk.WriteTransform(both, str(tmp_path / "both.h5"))
    cube, labels = grid((40, 40, 40), np.eye(4)), balls(SEG_SHAPE, SEG)
    cube.affine[:3, 3] = -20.0
    path = save(tmp_path / "aseg.mgz", labels, SEG)
    for name, transform in (("warp.nii.gz", warp), ("both.h5", both)):
        found = read(path, scan=cube, transform=tmp_path / name).arrays["dseg"]
        at = world(cube.shape, cube.affine).reshape(3, -1).T * (-1, -1, 1)
        moved = np.array([transform.TransformPoint(point) for point in at]) * (-1, -1, 1)
        index = (moved - SEG[:3, 3]) @ np.linalg.inv(SEG[:3, :3]).T
        values = np.unique(labels)
        total = [ndimage.map_coordinates((labels == one).astype(float), index.T, order=1) for one in values]
        clear = np.sort(total, axis=0)[-1] - np.sort(total, axis=0)[-2] > 1e-3
        expected = values[np.argmax(total, axis=0)]
        np.testing.assert_array_equal(found.ravel()[clear], expected[clear])
        assert np.count_nonzero(found) > 500


def test_an_lta_between_other_volumes_is_refused(tmp_path):
    write_lta(tmp_path / "x.lta", np.eye(4), ((9, 9, 9), np.eye(4)), ((8, 8, 8), np.eye(4)))
    path = save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)
    with pytest.raises(InputError, match=r"x.lta: leads from a volume of \(9, 9, 9\) voxels .* neither the scan"):
        read(path, transform=tmp_path / "x.lta")


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.txt", "hello"), ("x.mat", "1 0 0 0\n0 0 0 0\n0 0 1 0\n0 0 0 1\n"), ("x.lta", "type = 3"), ("x.h5", "no")],
)
def test_what_is_no_transform_is_refused_with_its_name(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    path = save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)
    with pytest.raises(InputError, match=f"maps/{name}: is no transform that nitransforms reads"):
        read(path, transform=tmp_path / name)


def head(shape=SCAN_SHAPE, affine=SCAN, radius=17.0):
    """A magnitude that is bright inside a ball and noise outside."""
    inside = (world(shape, affine) ** 2).sum(axis=0) < radius**2
    return (np.random.default_rng(1).uniform(0, 20, shape) + 500 * inside).astype(np.float32)


def moved(shift):
    affine = SEG.copy()
    affine[:3, 3] += shift
    return affine


def test_a_segmentation_beside_the_scan_is_an_error_that_says_what_to_do(tmp_path):
    path = save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), moved((200.0, 0, 0)))
    with pytest.raises(InputError, match=r"aseg.mgz: less than 1 % of its regions lies inside .* give the transform"):
        read(path)
    write_itk(tmp_path / "x.txt", rigid((0, 0, 0), (-300.0, 0, 0)))
    with pytest.raises(InputError, match="does the transform lead the other way"):
        read(path, transform=tmp_path / "x.txt")


def test_a_segmentation_in_air_is_an_error_and_one_half_in_it_a_warning(tmp_path):
    magnitude = head()
    here = read(save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG), magnitude=magnitude)
    assert here.source["on_signal"] > 0.99
    assert not here.warnings
    away = save(
        tmp_path / "away.mgz", np.where(balls(SEG_SHAPE, SEG) == 51, 51, 0).astype(np.int32), moved((5.0, 0, 0))
    )
    with pytest.raises(InputError, match=r"\d+% of its regions lies where the scan has no signal; by their headers"):
        read(away, magnitude=head(radius=8.0))
    partly = read(away, magnitude=head(radius=16.5))
    assert 0.5 < partly.source["on_signal"] < 0.9
    assert any("no signal" in warning for warning in partly.warnings)


def test_a_standard_space_is_refused_unless_a_transform_leads_there(tmp_path):
    path = save(tmp_path / "sub-01_space-MNI152NLin2009cAsym_dseg.nii.gz", balls(SEG_SHAPE, SEG), SEG)
    with pytest.raises(InputError, match="lies in the space MNI152NLin2009cAsym.*--transform.*--atlas"):
        read(path)
    write_itk(tmp_path / "x.txt", np.eye(4))
    assert_is_majority(read(path, transform=tmp_path / "x.txt").arrays["dseg"], balls(SEG_SHAPE, SEG), SEG)
    image = nib.Nifti1Image(balls(SEG_SHAPE, SEG), SEG)
    image.set_sform(SEG, 4)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "sub-01_dseg.nii.gz")
    with pytest.raises(InputError, match="does not say where it lay in the scanner"):
        read(tmp_path / "sub-01_dseg.nii.gz")
    with pytest.raises(InputError, match=r"header of scan.nii.gz does not say"):
        read(save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG), scan=grid(doubt="no orientation"))


def test_a_segmentation_of_no_session_warns_where_the_subject_has_several(tmp_path):
    path = save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)
    (warning,) = read(path, any_session=True).warnings
    assert "is of no session though its subject has several" in warning
    write_itk(tmp_path / "x.txt", np.eye(4))
    assert not read(path, any_session=True, transform=tmp_path / "x.txt").warnings


def test_a_space_of_the_subject_needs_no_transform(tmp_path):
    labels = balls(SEG_SHAPE, SEG)
    path = save(tmp_path / "sub-01_space-T1w_desc-aparcaseg_dseg.nii.gz", labels, SEG)
    assert_is_majority(read(path).arrays["dseg"], labels, SEG)


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_labels_up_to_2_to_the_31_stay_what_they_are(tmp_path, dtype):
    big = {12: 2**31 - 1, 51: 2**31 - 2, 10: 2**24 + 1, 16: 2**24 + 3}
    small = balls(SEG_SHAPE, SEG)
    labels = np.zeros(SEG_SHAPE, np.int64)
    for label, number in big.items():
        labels[small == label] = number
    found = read(save(tmp_path / "x_dseg.nii.gz", labels.astype(dtype), SEG)).arrays["dseg"]
    assert set(np.unique(found).tolist()) == {0, *big.values()}
    same = Grid("scan", SEG_SHAPE, SEG, "")
    np.testing.assert_array_equal(read(tmp_path / "x_dseg.nii.gz", scan=same).arrays["dseg"], labels)


def test_a_mask_of_another_grid_is_brought_over_too(tmp_path):
    labels = (balls(SEG_SHAPE, SEG) > 0).astype(np.uint8)
    found = read(save(tmp_path / "sub-01_desc-brain_mask.nii.gz", labels, SEG), "mask").arrays["mask"]
    assert found.dtype == np.bool_
    assert_is_majority(found.astype(int), labels, SEG)


def probabilities():
    labels = balls(SEG_SHAPE, SEG)
    return np.stack([ndimage.gaussian_filter((labels == label).astype(np.float32), 1.0) for label in (12, 51, 10)])


def expected_share(volume, points=(1, 1, 3)):
    to_image = np.linalg.inv(SEG) @ SCAN
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in SCAN_SHAPE), indexing="ij"))
    steps = [(np.arange(n) + 0.5) / n - 0.5 for n in points]
    found = np.zeros(SCAN_SHAPE)
    for step in np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3):
        at = np.tensordot(to_image[:3, :3], index + step.reshape(3, 1, 1, 1), axes=1)
        found += ndimage.map_coordinates(volume.astype(float), at + to_image[:3, 3].reshape(3, 1, 1, 1), order=1)
    return found / np.prod(points)


def test_probabilities_are_averaged_over_voxels_as_scipy_does_and_named_by_their_sidecar(tmp_path):
    given = probabilities()
    path = save(tmp_path / "sub-01_probseg.nii.gz", np.moveaxis(given, 0, -1), SEG)
    found = read(path, "probseg", LabelMap=["left", "right", "deep"])
    assert found.arrays["probseg"].dtype == np.float32
    for volume, one in zip(found.arrays["probseg"], given, strict=True):
        np.testing.assert_allclose(volume, expected_share(one), atol=2e-5)
    assert found.arrays["probseg_labels"].tolist() == [1, 2, 3]
    assert found.labels == {1: "left", 2: "right", 3: "deep"}
    assert found.source["inside"] == pytest.approx(1.0, abs=0.02)


def test_one_file_a_label_is_named_by_its_label_and_numbered_by_a_table(tmp_path):
    given = probabilities()
    files = [
        save(tmp_path / f"sub-01_label-{label}_probseg.nii.gz", volume, SEG)
        for label, volume in zip(("GM", "WM", "CSF"), given, strict=True)
    ]
    found = read(files[0], "probseg", others=files[1:])
    assert found.labels == {1: "GM", 2: "WM", 3: "CSF"}
    (tmp_path / "probseg.tsv").write_text("index\tname\n7\tCSF\n2\tGM\n")
    found = read(files[0], "probseg", others=files[1:], table=tmp_path / "probseg.tsv")
    assert found.labels == {2: "GM", 1: "WM", 7: "CSF"}
    assert found.arrays["probseg_labels"].tolist() == [2, 1, 7]


@pytest.mark.parametrize(
    ("change", "about", "message"),
    [
        (100.0, {}, "probabilities lie between 0 and 1, these reach 0 to"),
        (1.0, {"LabelMap": ["a", "b"]}, "has 3 volumes and 2 names"),
        (1.0, {"LabelMap": ["a", "a", "b"]}, "two of its volumes have one name"),
    ],
)
def test_probabilities_that_are_none_or_have_other_names_are_refused(tmp_path, change, about, message):
    stored = np.moveaxis(probabilities() * np.float32(change), 0, -1)
    with pytest.raises(InputError, match=message):
        read(save(tmp_path / "sub-01_probseg.nii.gz", stored, SEG), "probseg", **about)


def test_regions_of_probabilities_share_the_numbers_of_the_label_image_only_by_name():
    assert numbered_apart({1: "putamen", 2: "wm", 3: "gm"}, {12: "putamen", 2: "caudate"}) == {1: 12, 2: 13, 3: 3}
    assert numbered_apart({1: "a", 2: "b"}, {}) == {1: 1, 2: 2}


def test_freesurfer_names_have_both_sides_and_every_number_once():
    names = freesurfer.names()
    assert names[26], names[58] == ("Left-Accumbens-area", "Right-Accumbens-area")
    assert (names[1035], names[2002]) == ("ctx-lh-insula", "ctx-rh-caudalanteriorcingulate")
    lefts = {name[5:] for name in names.values() if name.startswith("Left-")}
    assert lefts == {name[6:] for name in names.values() if name.startswith("Right-")}
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize(
    ("name", "follows"),
    [
        ("freesurfer/sub-01/mri/aseg.mgz", True),
        ("fs/sub-01/mri/aparc.DKTatlas+aseg.deep.mgz", True),
        ("x/sub-01_T1w_synthseg.nii.gz", True),
        ("first/sub-01_all_fast_firstseg.nii.gz", True),
        ("fmriprep/sub-01/anat/sub-01_desc-aparcaseg_dseg.nii.gz", True),
        ("maps/sub-01/anat/sub-01_dseg.nii.gz", False),
        ("maps/sub-01/anat/sub-01_seg-nuclei_dseg.nii.gz", False),
    ],
)
def test_names_are_freesurfers_only_where_the_file_is_of_a_program_that_numbers_so(name, follows):
    assert freesurfer.follows(name) is follows


def test_a_table_beside_a_file_goes_before_freesurfers_names(tmp_path):
    path = save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)
    (tmp_path / "aseg.tsv").write_text("index\tname\n12\tmine\n")
    found = read(path, table=tmp_path / "aseg.tsv")
    assert found.labels[12] == "mine"
    assert found.labels[51] == "label_51"


def test_a_damaged_mgz_is_told(tmp_path):
    path = save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"maps/aseg.mgz: .*truncated"):
        read(path)
    assert read_header(save(tmp_path / "ok.mgz", balls(SEG_SHAPE, SEG), SEG)).doubt == ""


def test_an_mgz_that_states_no_orientation_is_refused(tmp_path):
    """The library reads it as coronal, as FreeSurfer does: the flag at byte 28 tells that nobody knows."""
    path = save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)
    content = gzip.decompress(path.read_bytes())
    assert content[28:30] == b"\0\1"
    path.write_bytes(gzip.compress(content[:28] + b"\0\0" + content[30:]))
    assert "goodRASFlag is 0" in read_header(path).doubt
    with pytest.raises(InputError, match=r"header of maps/aseg.mgz does not say where it lay in the scanner"):
        read(path)


def test_labels_whose_scanner_position_stands_in_the_qform_alone_are_placed_by_it(tmp_path):
    """An sform in a standard space beside a qform of the scanner is legal, and no reason to refuse."""
    image = nib.Nifti1Image(balls(SEG_SHAPE, SEG), None)
    image.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 4)
    image.set_qform(SEG, 1)
    nib.save(image, tmp_path / "sub-01_desc-a_dseg.nii.gz")
    expected = read(save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)).arrays["dseg"]
    np.testing.assert_array_equal(read(tmp_path / "sub-01_desc-a_dseg.nii.gz").arrays["dseg"], expected)


def test_provenance_is_plain(tmp_path):
    json.dumps(dict(read(save(tmp_path / "aseg.mgz", balls(SEG_SHAPE, SEG), SEG)).source))
