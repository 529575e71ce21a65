import pytest

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import FileRef
from qsm_dask.io.bids import index
from qsm_dask.io.sidecars import echo_times, field_strength, resolve
from tests.io.bids_tree import dataset, write_json


def resolved(root):
    """Resolved values of every image, by file name."""
    return {
        image.file.label.rpartition("/")[2]: resolve(image.sidecars)
        for acquisition in index(root).acquisitions
        for image in acquisition.images
    }


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_sidecars_are_inherited_from_root_subject_session_and_folder(tmp_path):
    root = dataset(tmp_path)
    one = "sub-01/ses-1/anat/sub-01_ses-1_echo-1_part-phase_MEGRE.nii.gz"
    two = "sub-01/ses-2/anat/sub-01_ses-2_echo-1_part-phase_MEGRE.nii.gz"
    touch(root, one, two)
    write_json(root / "MEGRE.json", {"MagneticFieldStrength": 3, "Manufacturer": "root", "Comment": "not used"})
    write_json(root / "echo-1_MEGRE.json", {"EchoTime": 0.001})
    write_json(root / "sub-01/sub-01_MEGRE.json", {"Manufacturer": "subject"})
    write_json(root / "sub-01/sub-01_part-phase_MEGRE.json", {"Units": "rad"})
    write_json(root / "sub-01/ses-1/sub-01_ses-1_echo-1_MEGRE.json", {"EchoTime": 0.004})
    write_json(root / "sub-01/ses-1/anat/sub-01_ses-1_MEGRE.json", {"Manufacturer": "folder"})
    found = resolved(root)
    assert found["sub-01_ses-1_echo-1_part-phase_MEGRE.nii.gz"] == {
        "EchoTime": 0.004,
        "MagneticFieldStrength": 3,
        "Manufacturer": "folder",
        "Units": "rad",
    }
    assert found["sub-01_ses-2_echo-1_part-phase_MEGRE.nii.gz"] == {
        "EchoTime": 0.001,
        "MagneticFieldStrength": 3,
        "Manufacturer": "subject",
        "Units": "rad",
    }


def test_a_sidecar_does_not_apply_where_an_entity_differs_or_is_absent(tmp_path):
    root = dataset(tmp_path)
    touch(root, "sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz", "sub-01/anat/sub-01_part-mag_T2starw.nii.gz")
    write_json(root / "echo-2_MEGRE.json", {"EchoTime": 0.002})
    write_json(root / "acq-x_MEGRE.json", {"EchoTime": 0.003})
    write_json(root / "part-phase_MEGRE.json", {"Units": "rad"})
    write_json(root / "sub-02_MEGRE.json", {"Manufacturer": "other subject"})
    write_json(root / "bold.json", {"Manufacturer": "other suffix"})
    write_json(root / "T2starw.json", {"Manufacturer": "T2starw only"})
    found = resolved(root)
    assert found["sub-01_echo-1_part-mag_MEGRE.nii.gz"] == {}
    assert found["sub-01_part-mag_T2starw.nii.gz"] == {"Manufacturer": "T2starw only"}


def test_in_one_folder_the_sidecar_with_more_entities_overrides(tmp_path):
    root = dataset(tmp_path)
    touch(root, "sub-01/anat/sub-01_acq-x_echo-1_part-mag_MEGRE.nii.gz")
    write_json(root / "acq-x_echo-1_MEGRE.json", {"EchoTime": 0.002})
    write_json(root / "echo-1_MEGRE.json", {"EchoTime": 0.001, "Manufacturer": "any"})
    assert resolved(root)["sub-01_acq-x_echo-1_part-mag_MEGRE.nii.gz"] == {"EchoTime": 0.002, "Manufacturer": "any"}


def test_a_null_in_a_closer_sidecar_takes_a_value_away(tmp_path):
    root = dataset(tmp_path)
    touch(root, "sub-01/anat/sub-01_part-mag_MEGRE.nii.gz")
    write_json(root / "MEGRE.json", {"EchoTime": 0.004})
    write_json(root / "sub-01/anat/sub-01_part-mag_MEGRE.json", {"EchoTime": None})
    assert resolved(root)["sub-01_part-mag_MEGRE.nii.gz"] == {}


def test_a_changed_sidecar_is_read_again(tmp_path):
    path = tmp_path / "MEGRE.json"
    write_json(path, {"EchoTime": 0.004})
    assert resolve([FileRef("MEGRE.json", str(path))]) == {"EchoTime": 0.004}
    write_json(path, {"EchoTime": 0.01})
    assert resolve([FileRef("MEGRE.json", str(path))]) == {"EchoTime": 0.01}


@pytest.mark.parametrize("content", ["{", "[1, 2]", ""])
def test_an_invalid_sidecar_is_named(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=r"sub-01_MEGRE\.json: not a valid JSON object"):
        resolve([FileRef("sub-01_MEGRE.json", str(tmp_path / "a.json"))])


def test_echo_times():
    assert echo_times({"EchoTime": 0.004}, 1, "f") == (0.004,)
    assert echo_times({"EchoTime": [0.004, 0.008]}, 2, "f") == (0.004, 0.008)


@pytest.mark.parametrize(
    ("value", "volumes", "message"),
    [
        (None, 1, "f: EchoTime is missing; add it, in seconds"),
        (0.004, 3, "f: 3 volumes but 1 EchoTime; a 4-D file needs EchoTime as a list"),
        ([0.004, 0.008], 1, "f: 1 volumes but 2 EchoTime"),
        ("0.004", 1, "f: EchoTime is '0.004'; give a positive number"),
        (True, 1, "positive number"),
        (float("nan"), 1, "positive number"),
        (0, 1, "positive number"),
        (4.0, 1, "looks like milliseconds"),
    ],
)
def test_wrong_echo_times_are_refused(value, volumes, message):
    with pytest.raises(InputError, match=message):
        echo_times({} if value is None else {"EchoTime": value}, volumes, "f")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"MagneticFieldStrength": 3}, (3.0, "MagneticFieldStrength")),
        # a nominal 3 T Siemens: 123.25 / 42.577 by hand
        ({"MagneticFieldStrength": 3, "ImagingFrequency": 123.25}, (2.894755, "ImagingFrequency")),
        ({"ImagingFrequency": 297.2}, (6.980295, "ImagingFrequency")),
    ],
)
def test_field_strength_comes_from_the_frequency_where_there_is_one(values, expected):
    b0, source = field_strength({"f": values})
    assert b0 == pytest.approx(expected[0], abs=1e-6)
    assert source == expected[1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"f": {}}, r"f: field strength is missing; add MagneticFieldStrength \[T\] or ImagingFrequency"),
        ({"f": {"MagneticFieldStrength": 1.5, "ImagingFrequency": 123.25}}, "they differ by more than 5 %"),
        ({"f": {"ImagingFrequency": 123.25e6}}, "give tesla, or megahertz"),
        ({"f": {"MagneticFieldStrength": 15000}}, "give tesla"),
        ({"f": {"MagneticFieldStrength": "3T"}}, "MagneticFieldStrength is '3T'; give a positive number"),
        (
            {"f": {"MagneticFieldStrength": 3}, "g": {"MagneticFieldStrength": 7}},
            "differs within the series: 3 in f, 7 in g",
        ),
    ],
)
def test_wrong_field_strengths_are_refused(files, message):
    with pytest.raises(InputError, match=message):
        field_strength(files)


def test_a_field_strength_that_some_files_lack_is_that_of_the_others():
    assert field_strength({"f": {}, "g": {"MagneticFieldStrength": 7}}) == (7.0, "MagneticFieldStrength")
