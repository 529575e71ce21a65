"""NIfTI files: values, echoes and orientation as they were meant, and what is broken named."""

import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from qsm_dask.errors import InputError
from qsm_dask.io.nifti import read_header, read_into, read_volume, write_volume
from tests.io.bids_tree import AFFINE, write_image
from tests.io.geometries import COS, GEOMETRIES, SIN, affine_of


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_scaled_integers_are_exact_where_float32_is(tmp_path, extension):
    stored = np.arange(4096, dtype=np.uint16).reshape(16, 16, 16)
    write_image(tmp_path / f"a{extension}", stored, slope=2, inter=-4096)
    read = read_volume(tmp_path / f"a{extension}")
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, 2.0 * stored.astype(np.float64) - 4096)


def test_scaled_integers_are_as_near_as_float32_gets(tmp_path):
    stored = np.arange(4096, dtype=np.int16).reshape(16, 16, 16)
    write_image(tmp_path / "a.nii.gz", stored, slope=0.0015344619750976562, inter=-3.141592502593994)
    exact = stored * 0.0015344619750976562 - 3.141592502593994
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz"), exact, atol=5e-7)


@pytest.mark.parametrize("dtype", [">i2", "<f8", ">f4", "u1", "<i4"])
def test_stored_types_and_byte_orders(tmp_path, dtype):
    stored = np.arange(60).reshape(5, 4, 3).astype(dtype)
    image = nib.Nifti1Image(stored, AFFINE, nib.Nifti1Header(endianness=stored.dtype.byteorder.replace("|", "=")))
    image.set_data_dtype(stored.dtype)
    image.header.set_slope_inter(1, 0)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii"), stored.astype(np.float32))


def test_echoes_come_first_in_memory_and_last_on_disk(tmp_path):
    stored = np.random.default_rng(0).random((4, 3, 2, 5)).astype(np.float32)
    write_image(tmp_path / "a.nii.gz", stored)
    read = read_volume(tmp_path / "a.nii.gz")
    assert read.shape == (5, 4, 3, 2)
    for echo in range(5):
        np.testing.assert_array_equal(read[echo], stored[..., echo])


def test_a_trailing_axis_of_one_is_no_echo(tmp_path):
    write_image(tmp_path / "a.nii", np.ones((4, 3, 2, 1), np.float32))
    assert read_volume(tmp_path / "a.nii").shape == (4, 3, 2)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_reading_holds_one_stored_volume_and_no_float64(tmp_path, extension):
    stored = np.random.default_rng(0).integers(0, 4095, (64, 64, 48, 3)).astype(np.int16)
    write_image(tmp_path / f"a{extension}", stored, slope=2, inter=-4096)
    header = read_header(tmp_path / f"a{extension}")
    out = np.empty((3, 64, 64, 48), np.float32)
    peaks = []
    for _ in range(3):  # threads of other tests may allocate meanwhile
        tracemalloc.start()
        read_into(header, out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks) < 2 * header.voxels + 300_000  # one int16 volume; buffers of the unpacker
    np.testing.assert_array_equal(out[2], 2.0 * stored[..., 2] - 4096)


def truncated(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize(
    ("extension", "keep", "message"),
    [
        (".nii", -10, r"truncated: volume 2 of 2 ends after 470 of 480 bytes"),
        (".nii.gz", -200, "truncated"),
        (".nii.gz", -4, "truncated"),  # the checksum alone is cut off
        (".nii", 100, "truncated or damaged|not a NIfTI"),
        (".nii", 0, "truncated or damaged|not a NIfTI"),
        (".nii.gz", 20, "truncated or damaged|not a NIfTI"),
    ],
)
def test_a_truncated_file_is_named(tmp_path, extension, keep, message):
    path = tmp_path / f"scan{extension}"
    write_image(path, np.random.default_rng(0).random((5, 4, 6, 2)).astype(np.float32))
    truncated(path, keep)
    with pytest.raises(InputError, match=rf"scan{extension}.*({message})"):
        read_volume(path)


def test_a_flipped_bit_in_a_compressed_file_is_found(tmp_path):
    path = tmp_path / "scan.nii.gz"
    write_image(path, np.zeros((20, 20, 20), np.int16))
    content = bytearray(gzip.decompress(path.read_bytes()))
    packed = bytearray(gzip.compress(bytes(content)))
    packed[-6] ^= 1  # in the stored checksum
    path.write_bytes(bytes(packed))
    with pytest.raises(InputError, match="damaged"):
        read_volume(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_no_finite_float32_are_refused(tmp_path, bad):
    stored = np.ones((4, 3, 2))
    stored[1, 1, 1] = bad
    write_image(tmp_path / "scan.nii.gz", stored)
    with pytest.raises(InputError, match=r"scan\.nii\.gz: 1 voxels are NaN or infinite"):
        read_volume(tmp_path / "scan.nii.gz")


def test_what_is_no_volume_is_refused(tmp_path):
    (tmp_path / "text.nii").write_text("no image" * 100)
    with pytest.raises(InputError, match=r"text\.nii: not a NIfTI file"):
        read_header(tmp_path / "text.nii")
    with pytest.raises(InputError, match="no such file"):
        read_header(tmp_path / "absent.nii")
    (tmp_path / "link.nii").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="link whose target is absent: fetch the data"):
        read_header(tmp_path / "link.nii")
    write_image(tmp_path / "complex.nii", np.ones((3, 3, 3), np.complex64))
    with pytest.raises(InputError, match=r"complex64 values; store real ones"):
        read_header(tmp_path / "complex.nii")
    write_image(tmp_path / "flat.nii", np.ones((3, 3), np.float32))
    with pytest.raises(InputError, match="three dimensions are wanted"):
        read_header(tmp_path / "flat.nii")
    write_image(tmp_path / "five.nii", np.ones((3, 3, 3, 2, 2), np.float32))
    with pytest.raises(InputError, match="three dimensions are wanted"):
        read_header(tmp_path / "five.nii")


def mgh(shape=(4, 5, 6)):
    return nib.freesurfer.MGHImage(np.zeros(shape, np.float32), np.eye(4)).to_bytes()


HTML = b"<!DOCTYPE html><html><body>404 not found</body></html>" * 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mgh", HTML, "not an MGH file"),
        ("a.mgz", HTML, "not an MGH file"),
        ("a.mgz", gzip.compress(HTML), "not an MGH file"),
        ("a.mgh", mgh()[:100], "its header is not whole"),
        ("a.mgz", gzip.compress(mgh())[:40], "truncated or damaged"),
        ("a.mgh", mgh()[:20] + b"\0\0\x10\x03" + mgh()[24:], "not an MGH file"),
        ("a.mgh", mgh()[:4] + bytes(4) + mgh()[8:], "not an MGH file"),
        ("a.mgh", mgh()[:4] + b"\xff" * 4 + mgh()[8:], "not an MGH file"),
        ("a.mgh", b"", "its header is not whole"),
    ],
    ids=["text", "text as mgz", "packed text", "short", "cut", "no such type", "no voxels", "negative", "empty"],
)
def test_a_file_that_is_no_mgh_is_an_error_of_input(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*({message})"):
        read_header(tmp_path / name)


@pytest.mark.parametrize("code", [3, 4, 5])
def test_orientation_comes_from_the_scanner_not_from_a_template(tmp_path, code):
    tilted = affine_of(GEOMETRIES["tilted about x"][0])
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), None)
    image.set_sform(np.diag([2, 2, 2, 1]), code)
    image.set_qform(tilted, 1)
    nib.save(image, tmp_path / "a.nii")
    header = read_header(tmp_path / "a.nii")
    np.testing.assert_allclose(header.b0_dir, (0, SIN, COS), atol=1e-6)
    assert header.note == f"the sform is in a standard space (code {code}) and was left aside: B0 taken from the qform"
    assert header.doubt == ""


@pytest.mark.parametrize(("sform", "qform"), [(4, 0), (3, 4), (0, 3)])
def test_an_orientation_in_a_standard_space_only_is_doubted(tmp_path, sform, qform):
    """There is nothing better to take, and nothing to tell how far the head was rotated."""
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), None)
    image.set_sform(np.diag([2, 2, 2, 1]), sform)
    image.set_qform(np.diag([2, 2, 2, 1]), qform)
    nib.save(image, tmp_path / "a.nii")
    header = read_header(tmp_path / "a.nii")
    assert f"in a standard space only (sform code {sform}, qform code {qform})" in header.doubt
    np.testing.assert_allclose(header.b0_dir, (0, 0, 1))


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (2, 1), (1, 4), (0, 1)])
def test_a_scanner_orientation_is_not_doubted(tmp_path, sform, qform):
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), None)
    image.set_qform(affine_of(GEOMETRIES["tilted about x"][0]), qform)
    image.set_sform(affine_of(GEOMETRIES["tilted about x"][0]), sform)
    nib.save(image, tmp_path / "a.nii")
    header = read_header(tmp_path / "a.nii")
    assert (header.doubt, header.note) == ("", "")
    np.testing.assert_allclose(header.b0_dir, (0, SIN, COS), atol=1e-6)


def test_a_header_without_orientation_says_so(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), None), tmp_path / "a.nii")
    assert "states no orientation" in read_header(tmp_path / "a.nii").doubt


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(4, 3, 2), (3, 4, 3, 2)])
def test_written_volumes_come_back_with_affine_and_echoes_last(tmp_path, extension, shape):
    tilted = affine_of(GEOMETRIES["tilted about y"][0])
    volume = np.random.default_rng(1).random(shape).astype(np.float32)
    write_volume(tmp_path / f"a{extension}", volume, tilted)
    image = nib.load(tmp_path / f"a{extension}")
    assert image.shape == ((4, 3, 2) if len(shape) == 3 else (4, 3, 2, 3))
    np.testing.assert_allclose(image.affine, tilted, atol=1e-6)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{extension}"), volume)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{extension}"]


def test_written_bytes_are_stable_and_types_are_those_of_bids(tmp_path):
    mask = np.zeros((4, 3, 2), bool)
    mask[1, 1, 1] = True
    write_volume(tmp_path / "a.nii.gz", mask, AFFINE)
    write_volume(tmp_path / "b.nii.gz", mask, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == np.uint8
    write_volume(tmp_path / "c.nii", mask.astype(np.int64), AFFINE)
    assert nib.load(tmp_path / "c.nii").get_data_dtype() == np.int32
