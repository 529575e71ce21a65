"""Label images and transforms are found by patterns, and where other programs leave them."""

import pytest

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.io.bids import index
from qsm_dask.io.derivatives import attach, parse
from qsm_dask.io.patterns import Transforms
from tests.io.bids_tree import dataset, scan


@pytest.fixture
def root(tmp_path):
    return dataset(tmp_path / "bids")


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def attached(root, *specs, transforms=()):
    moved = [Transforms.parse(text, root) for text in transforms]
    return attach(index(root).acquisitions, parse(specs, root), None, moved)


def files(acquisitions):
    return {str(one): {item.quantity: item.file.label for item in one.maps} for one in acquisitions}


@pytest.mark.parametrize(
    "place",
    [
        "{sub}_{ses}/mri/aseg.mgz",
        "{sub}/{ses}/mri/aseg.mgz",
        "{sub}/mri/aseg.mgz",
        "{sub}/mri/aparc.DKTatlas+aseg.deep.mgz",
        "{sub}/mri/synthseg.mgz",
        "{sub}/{ses}/anat/{sub}_{ses}_T1w_synthseg.nii.gz",
        "{sub}/anat/{sub}_T1w_all_fast_firstseg.nii.gz",
    ],
)
def test_what_known_programs_leave_is_found_without_a_pattern(root, tmp_path, place):
    scan(root, "sub-01_ses-1")
    where = place.replace("{sub}", "sub-01").replace("{ses}", "ses-1")
    touch(tmp_path / "seg" / where)
    assert files(attached(root, f"{tmp_path / 'seg'}:dseg")) == {"sub-01_ses-1": {"dseg": f"seg/{where}"}}


def test_the_aseg_of_the_session_comes_before_the_subjects_and_a_bids_name_before_both(root, tmp_path):
    scan(root, "sub-01_ses-1")
    scan(root, "sub-01_ses-2")
    out = tmp_path / "fs"
    touch(out / "sub-01/mri/aseg.mgz", out / "sub-01_ses-1/mri/aseg.mgz", out / "sub-01_ses-1/mri/synthseg.mgz")
    first, second = attached(root, str(out))
    assert first.maps[0].file.label == "fs/sub-01_ses-1/mri/aseg.mgz"
    assert not first.maps[0].any_session
    assert second.maps[0].file.label == "fs/sub-01/mri/aseg.mgz"
    assert second.maps[0].any_session
    touch(out / "sub-01/ses-2/anat/sub-01_ses-2_dseg.nii.gz")
    assert files(attached(root, str(out)))["sub-01_ses-2"]["dseg"].endswith("sub-01_ses-2_dseg.nii.gz")


def test_a_pattern_takes_the_place_of_names_and_brings_the_table_beside_it(root, tmp_path):
    scan(root, "sub-01_ses-1")
    out = tmp_path / "out"
    touch(out / "ses-1/sub-01.labels.nii.gz", out / "ses-1/sub-01.labels.tsv", out / "sub-01/anat/sub-01_dseg.nii.gz")
    (found,) = attached(root, f"{out}:dseg={{ses}}/{{sub}}.labels.nii.gz")
    assert found.maps[0].file.label == "out/ses-1/sub-01.labels.nii.gz"
    assert found.maps[0].table.label == "out/ses-1/sub-01.labels.tsv"
    (found,) = attached(root, f"{out}:dseg={{ses}}/*.nii.gz")
    assert found.maps[0].file.label == "out/ses-1/sub-01.labels.nii.gz"
    touch(out / "ses-1/sub-01.more.nii.gz")
    (found,) = attached(root, f"{out}:dseg={{ses}}/*.nii.gz")
    assert "two files claim dseg" in found.problem


def test_probabilities_one_file_a_label_enter_as_one(root, tmp_path):
    scan(root, "sub-01")
    out = tmp_path / "out"
    for label in ("WM", "GM"):
        touch(out / f"sub-01/anat/sub-01_label-{label}_probseg.nii.gz")
    (found,) = attached(root, f"{out}:probseg")
    (item,) = found.maps
    assert [one.label.rpartition("/")[2] for one in (item.file, *item.others)] == [
        "sub-01_label-GM_probseg.nii.gz",
        "sub-01_label-WM_probseg.nii.gz",
    ]
    assert {file.label for file in found.files} >= {item.file.label, item.others[0].label}


def test_a_scan_whose_transform_is_missing_goes_without_the_labels_and_says_so(root, tmp_path):
    for name in ("sub-01", "sub-02"):
        scan(root, name)
        touch(tmp_path / "fs" / name / "mri/aseg.mgz")
    touch(tmp_path / "xfm/sub-01_from-T1w_to-scan.lta")
    first, second = attached(
        root, f"{tmp_path / 'fs'}:dseg", transforms=[f"{tmp_path}/xfm/{{sub}}_from-T1w_to-scan.lta"]
    )
    assert first.maps[0].transform.label == "xfm/sub-01_from-T1w_to-scan.lta"
    assert second.maps == ()
    assert second.notes == ("dseg left out: no transform {sub}_from-T1w_to-scan.lta",)


def test_transforms_move_labels_and_probabilities_and_masks_only_when_named(root, tmp_path):
    scan(root, "sub-01")
    out = tmp_path / "out"
    for name in ("dseg", "probseg", "desc-brain_mask"):
        touch(out / f"sub-01/anat/sub-01_{name}.nii.gz")
    touch(tmp_path / "x.txt")
    spec = f"{out}:dseg,probseg,mask"
    (found,) = attached(root, spec, transforms=[f"{tmp_path}/x.txt"])
    assert {item.quantity: item.transform is not None for item in found.maps} == {
        "dseg": True,
        "probseg": True,
        "mask": False,
    }
    (found,) = attached(root, spec, transforms=[f"mask={tmp_path}/x.txt"])
    assert {item.quantity for item in found.maps if item.transform} == {"mask"}


def test_one_transform_for_several_participants_is_refused(root, tmp_path):
    for name in ("sub-01", "sub-02"):
        scan(root, name)
        touch(tmp_path / "fs" / name / "mri/aseg.mgz")
    touch(tmp_path / "x.lta")
    with pytest.raises(InputError, match="one file for 2 participants; put {sub} where they differ"):
        attached(root, f"{tmp_path / 'fs'}:dseg", transforms=[f"{tmp_path}/x.lta"])
    with pytest.raises(InputError, match="no file of that name for any scan that has dseg or probseg"):
        attached(root, f"{tmp_path / 'fs'}:dseg", transforms=[f"{tmp_path}/{{sub}}.lta"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:dseg={{subject}}/x.mgz", "names {subject}; entities are such as {sub}"),
        ("{}:dseg=../x.mgz", "must lie below the folder"),
        ("{}:dseg=mri/{{sub.mgz", "entities are such as"),
    ],
)
def test_wrong_patterns_are_refused(root, tmp_path, spec, message):
    with pytest.raises(ConfigError, match=message):
        parse([spec.format(tmp_path)], root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}/absent/{{sub}}.lta", "there is no folder"),
        ("chi={}/{{sub}}.lta", "'chi' cannot be moved; take any of dseg"),
    ],
)
def test_wrong_transforms_are_refused(root, tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        Transforms.parse(text.format(tmp_path), root)


def test_a_pattern_that_fits_nobody_is_told_with_what_was_looked_for(root, tmp_path):
    scan(root, "sub-01")
    touch(tmp_path / "fs/sub-02/mri/aseg.mgz")
    with pytest.raises(InputError, match=r"no dseg in it belongs to any scan .*mri/mine.mgz"):
        attached(root, f"{tmp_path / 'fs'}:dseg=mri/mine.mgz")
