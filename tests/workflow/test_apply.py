"""`apply` runs one stage on files, and says which stage and which file when it cannot."""

import json

import nibabel as nib
import numpy as np
import pytest

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.stages import STAGES
from qsm_dask.workflow import apply

SHAPE = (16, 18, 14)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.fixture
def files(tmp_path):
    """Images of a ball, by quantity."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    ball = x**2 + y**2 + z**2 < 0.6
    field = np.where(ball, 0.01 * z, 0).astype(np.float32)
    phase = np.stack([field * scale for scale in (10, 20, 30)], axis=-1)
    arrays = {"mask": ball.astype(np.uint8), "local_field": field, "phase": phase, "magnitude": 1 + phase}
    for name, array in arrays.items():
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / f"{name}.nii.gz")
    return {name: tmp_path / f"{name}.nii.gz" for name in arrays}


def chosen(files, *names):
    return {name: files[name] for name in names}


def test_outputs_keep_the_affine_and_take_b0_dir_from_it(files, tmp_path):
    (path,) = apply.run("inversion.tkd", chosen(files, "local_field", "mask"), tmp_path / "out")
    assert path == tmp_path / "out" / "chi.nii.gz"
    image = nib.load(path)
    np.testing.assert_array_equal(image.affine, AFFINE)
    mask = np.asarray(nib.load(files["mask"]).dataobj) != 0
    field = np.asarray(nib.load(files["local_field"]).dataobj)
    expected = STAGES["inversion.tkd"].kernel(field, mask, (2.0, 2.0, 3.0), (0.0, 0.0, 1.0))
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)


def test_an_orientation_in_doubt_is_told_where_it_matters(files, tmp_path, caplog):
    for path in files.values():
        image = nib.load(path)
        image.set_sform(AFFINE, 4)
        image.set_qform(AFFINE, 0)
        nib.save(image, path)
    given = chosen(files, "local_field", "mask")
    apply.run("mask.erode", given, tmp_path / "out", parameters={"depth_mm": 1.0})
    apply.run("inversion.tkd", given, tmp_path / "out", b0_dir=(0, 0, 1))
    assert not caplog.records
    apply.run("inversion.tkd", given, tmp_path / "out")
    assert "in a standard space only" in caplog.text


def test_units_that_a_sidecar_states_are_converted(files, tmp_path):
    """A field of 0.01 ppm in hertz at 3 T is the project's 42.577 MHz/T times 3 T times 0.01 ppm."""
    given = chosen(files, "local_field", "mask")
    (chi,) = apply.run("inversion.tkd", given, tmp_path / "ppm")
    hertz = np.asarray(nib.load(files["local_field"]).dataobj) * np.float32(42.577 * 3)
    nib.save(nib.Nifti1Image(hertz, AFFINE), files["local_field"])
    files["local_field"].with_name("local_field.json").write_text('{"Units": "Hz"}')
    (same,) = apply.run("inversion.tkd", given, tmp_path / "hz", b0=3.0)
    expected, found = (np.asarray(nib.load(path).dataobj) for path in (chi, same))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(InputError, match=r"local_field.nii.gz: local_field is in Hz by its sidecar; give the field"):
        apply.run("inversion.tkd", given, tmp_path / "none")
    files["local_field"].with_name("local_field.json").write_text('{"Units": "mm"}')
    with pytest.raises(InputError, match=r"local_field.json: Units is 'mm'; a local_field comes in ppm or Hz"):
        apply.run("inversion.tkd", given, tmp_path / "none", b0=3.0)


def test_quantities_that_the_stage_does_not_read_are_not_even_opened(files, tmp_path):
    given = {**chosen(files, "local_field", "mask"), "magnitude": tmp_path / "nowhere.nii.gz"}
    assert apply.run("inversion.tkd", given, tmp_path / "out")


@pytest.mark.parametrize(
    ("stage", "given", "options", "message"),
    [
        ("unwrap.romeo", ("phase", "mask"), {"te": (0.01, 0.02)}, r"^unwrap.romeo: phase has 3 .*phase is .*phase.nii"),
        ("unwrap.romeo", ("phase", "mask"), {"te": (4, 8, 12)}, "^unwrap.romeo: te starts at 4.*milliseconds"),
        ("relaxometry.arlo", ("magnitude", "mask"), {"te": (0.01, 0.02, 0.05)}, "^relaxometry.arlo: .*equally spaced"),
    ],
)  # fmt: skip
def test_what_a_kernel_refuses_names_stage_and_input(files, tmp_path, stage, given, options, message):
    with pytest.raises(InputError, match=message) as refusal:
        apply.run(stage, chosen(files, *given), tmp_path / "out", **options)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_parameter_out_of_range_is_refused_before_a_file_is_read(files, tmp_path):
    files["local_field"].unlink()
    with pytest.raises(ConfigError, match="^inversion.tkd: threshold: 1 is out of range: it must be above 0"):
        apply.run(
            "inversion.tkd", chosen(files, "local_field", "mask"), tmp_path / "out", parameters={"threshold": "1"}
        )


def test_an_empty_mask_is_named_by_its_file(files, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), files["mask"])
    with pytest.raises(InputError, match=rf"^inversion.tkd: mask is empty.*\(mask is {files['mask']}\)$"):
        apply.run("inversion.tkd", chosen(files, "local_field", "mask"), tmp_path / "out")


@pytest.mark.parametrize(
    ("stage", "names", "options", "message"),
    [
        ("inversion.tdk", (), {}, "^no stage 'inversion.tdk'; did you mean 'inversion.tkd'"),
        ("tkd", (), {}, "^no stage 'tkd'; did you mean 'inversion.tkd'"),
        ("inversion.tkd", ("local_field",), {}, r"^inversion.tkd lacks mask \(--input mask=FILE.nii.gz\)$"),
        ("inversion.tkd", (), {}, "give at least one as --input"),
        ("inversion.tkd", ("mask",), {"parameters": {"treshold": "1"}}, "^inversion.tkd: no parameter 'treshold'; did"),
        ("unwrap.romeo", ("phase", "mask"), {}, "lacks te .--te SECONDS"),
        ("field.weighted_mean", ("mask",), {"b0": 123.2}, "^--b0 123.2: .*tesla"),
        ("inversion.tkd", ("mask",), {"b0_dir": (0, 0, 0)}, "^--b0-dir"),
    ],
)
def test_wrong_usage_says_what_to_do(files, tmp_path, stage, names, options, message):
    with pytest.raises(ConfigError, match=message):
        apply.run(stage, chosen(files, *names), tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("name", "message"), [("b0", "give --b0"), ("affine", "affine gives it"), ("local_feild", "'local_field'")]
)
def test_names_that_are_no_image_are_refused(files, tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        apply.run("inversion.tkd", {**chosen(files, "mask"), name: files["mask"]}, tmp_path / "out")


def test_how_an_iteration_ended_is_written_beside_the_map(files, tmp_path):
    apply.run("inversion.tv", chosen(files, "local_field", "mask"), tmp_path / "out", parameters={"max_iterations": 3})
    solved = json.loads((tmp_path / "out" / "inversion.tv.json").read_text())["solved"]
    assert solved["iterations"] <= 3
