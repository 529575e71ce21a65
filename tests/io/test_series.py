import threading

import numpy as np
import pytest

from qsm_dask.errors import InputError, NoPhase
from qsm_dask.io import series
from qsm_dask.io.bids import index
from qsm_dask.io.nifti import read_header
from qsm_dask.io.phase import PhaseSign
from qsm_dask.io.series import outline, read
from qsm_dask.io.sidecars import resolve
from tests.io.bids_tree import AFFINE, SHAPE, TE, dataset, scan, signal, write_image, write_json

SIN, COS = 0.5372996083468239, 0.8433914458128857  # of 32.5 degrees
TILTED = np.array([[0.8, 0, 0, -80], [0, 0.8 * COS, -3 * SIN, -90], [0, 0.8 * SIN, 3 * COS, -40], [0, 0, 0, 1]])


def read_only_scan(root, sign="auto"):
    (acquisition,) = index(root).acquisitions
    metadata = {image.file.label: resolve(image.sidecars) for image in acquisition.images}
    return read(acquisition, metadata, PhaseSign.parse(sign))


def test_a_multi_echo_scan_by_hand(tmp_path):
    scan(dataset(tmp_path), affine=TILTED, ImagingFrequency=123.25)
    arrays = signal()
    reading = read_only_scan(tmp_path)
    np.testing.assert_array_equal(reading.arrays["magnitude"], arrays["mag"])
    np.testing.assert_array_equal(reading.arrays["phase"], arrays["phase"])
    assert reading.header["te"] == [0.004, 0.008, 0.012]
    assert reading.header["b0"] == pytest.approx(2.894755, abs=1e-6)
    np.testing.assert_allclose(reading.header["voxel_size"], (0.8, 0.8, 3), rtol=1e-6)
    np.testing.assert_allclose(reading.header["b0_dir"], (0, SIN, COS), atol=1e-7)
    np.testing.assert_allclose(reading.header["affine"], TILTED, rtol=1e-6)
    assert reading.geometry.shape == SHAPE
    assert reading.geometry.te == TE
    assert reading.sources["b0"]["key"] == "ImagingFrequency"
    assert reading.sources["phase"]["units"] == "Units: rad"
    assert reading.sources["phase"]["sign_reason"] == "auto: taken as delivered"
    assert reading.sources["magnitude"]["from"] == "raw"
    assert len(reading.sources["magnitude"]["files"]) == 3
    assert reading.warnings == ()


def test_a_single_echo_scan(tmp_path):
    scan(dataset(tmp_path), suffix="T2starw", te=[0.02], extension=".nii")
    reading = read_only_scan(tmp_path)
    assert reading.arrays["phase"].shape == (1, *SHAPE)
    assert reading.header["te"] == [0.02]


def test_echoes_are_ordered_by_time_not_by_name(tmp_path):
    scan(dataset(tmp_path), te=[0.012, 0.004, 0.008])
    reading = read_only_scan(tmp_path)
    assert reading.header["te"] == [0.004, 0.008, 0.012]
    np.testing.assert_array_equal(reading.arrays["phase"], signal()["phase"][[1, 2, 0]])
    np.testing.assert_array_equal(reading.arrays["magnitude"], signal()["mag"][[1, 2, 0]])


@pytest.mark.parametrize("te", [[0.004, 0.008, 0.012], [0.012, 0.004, 0.008]])
def test_echoes_in_one_4d_file(tmp_path, te):
    root, arrays = dataset(tmp_path), signal()
    for part in ("mag", "phase"):
        stem = root / f"sub-01/anat/sub-01_part-{part}_MEGRE"
        write_image(stem.with_suffix(".nii.gz"), np.moveaxis(arrays[part], 0, -1))
        write_json(stem.with_suffix(".json"), {"EchoTime": te, "MagneticFieldStrength": 3, "Units": "rad"})
    reading = read_only_scan(root)
    assert reading.header["te"] == [0.004, 0.008, 0.012]
    np.testing.assert_array_equal(reading.arrays["phase"], arrays["phase"][np.argsort(te)])
    assert reading.geometry.shape == SHAPE


def test_phase_units_are_found_once_for_all_echoes(tmp_path):
    """The first echo fills a quarter of the turn only."""
    turn = signal()["phase"] / (2 * np.pi) * np.array([0.25, 1, 1])[:, None, None, None]
    stored = np.clip(np.rint((turn + 0.5) * 4096), 0, 4095).astype(np.int16)
    scan(dataset(tmp_path), arrays={"mag": signal()["mag"], "phase": stored}, Units="arbitrary")
    reading = read_only_scan(tmp_path)
    np.testing.assert_allclose(reading.arrays["phase"], (stored - 2048.0) * 2 * np.pi / 4096, atol=1e-6)
    assert np.ptp(reading.arrays["phase"][0]) < 1.7
    assert reading.warnings == ()


def test_phase_without_units_is_recognised_with_a_warning(tmp_path):
    folder = scan(dataset(tmp_path), parts=["mag"])
    stored = np.clip(np.rint((signal()["phase"] / (2 * np.pi) + 0.5) * 4095), 0, 4095).astype(np.int16)
    for echo in (1, 2, 3):
        stem = folder / f"sub-01_echo-{echo}_part-phase_MEGRE"
        write_image(stem.with_suffix(".nii.gz"), stored[echo - 1], slope=2, inter=-4096)
        write_json(stem.with_suffix(".json"), {"EchoTime": TE[echo - 1], "MagneticFieldStrength": 3})
    reading = read_only_scan(tmp_path)
    np.testing.assert_allclose(reading.arrays["phase"], (2.0 * stored - 4096) * np.pi / 4096, atol=1e-6)
    assert reading.warnings == (
        "phase has no Units; taken for rescaled 12 bit, -4096..4094 (scl_slope 2, scl_inter -4096)",
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_real_and_imaginary_images(tmp_path, sign):
    arrays = signal()
    complex_signal = arrays["mag"] * np.exp(1j * arrays["phase"].astype(np.float64))
    parts = {"real": complex_signal.real.astype(np.float32), "imag": complex_signal.imag.astype(np.float32)}
    scan(dataset(tmp_path), parts=parts, arrays=parts)
    reading = read_only_scan(tmp_path, f"{sign:+d}")
    np.testing.assert_allclose(reading.arrays["magnitude"], arrays["mag"], rtol=1e-6)
    np.testing.assert_allclose(reading.arrays["phase"], sign * arrays["phase"], atol=1e-5)
    assert reading.sources["phase"]["units"] == "from real and imaginary"


def test_magnitude_and_phase_are_preferred_to_real_and_imaginary(tmp_path):
    parts = {**signal(), "real": signal(1)["phase"], "imag": signal(2)["phase"]}
    scan(dataset(tmp_path), parts=parts, arrays=parts)
    reading = read_only_scan(tmp_path)
    np.testing.assert_array_equal(reading.arrays["phase"], parts["phase"])
    assert "left aside" in reading.warnings[0]


def test_the_phase_sign_follows_scan_and_manufacturer(tmp_path):
    scan(dataset(tmp_path), Manufacturer="GE MEDICAL SYSTEMS")
    np.testing.assert_array_equal(read_only_scan(tmp_path).arrays["phase"], signal()["phase"])
    assert "GE=-1" in read_only_scan(tmp_path).warnings[0]
    turned = read_only_scan(tmp_path, "GE=-1")
    np.testing.assert_array_equal(turned.arrays["phase"], -signal()["phase"])
    assert turned.sources["phase"]["sign"] == -1
    assert turned.sources["phase"]["sign_reason"] == "given for manufacturer GE MEDICAL SYSTEMS"


def test_no_phase_is_an_error_of_its_own(tmp_path):
    scan(dataset(tmp_path), parts=["mag"])
    with pytest.raises(NoPhase, match="no phase"):
        read_only_scan(tmp_path)


def remove(pattern):
    def act(folder):
        for path in folder.glob(pattern):
            path.unlink()

    return act


def rewrite(name, **values):
    return lambda folder: write_json(folder / name, values)


def replace(name, stored, **options):
    return lambda folder: write_image(folder / name, stored, **options)


def truncate(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40])


def dangle(name):
    def act(folder):
        (folder / name).unlink()
        (folder / name).symlink_to("/nowhere/at/all")

    return act


def with_nan():
    stored = signal()["phase"][1].copy()
    stored[2, 2, 2] = np.nan
    return stored


PHASE2 = "sub-01_echo-2_part-phase_MEGRE"
MOVED = AFFINE.copy()
MOVED[0, 3] += 0.5

BROKEN = {
    "phase of an echo": (remove(f"{PHASE2}.*"), "missing echo: echo-2 has no part-phase image"),
    "magnitude of an echo": (remove("*echo-3_part-mag*"), "missing echo: echo-3 has no part-mag image"),
    "magnitude altogether": (remove("*part-mag*"), r"phase images without magnitude \(part-mag\)"),
    "sidecar": (remove(f"{PHASE2}.json"), f"{PHASE2}.nii.gz: EchoTime is missing"),
    "EchoTime": (rewrite(f"{PHASE2}.json", Units="rad"), f"{PHASE2}.nii.gz: EchoTime is missing"),
    "invalid sidecar": (
        lambda folder: (folder / f"{PHASE2}.json").write_text("{"),
        f"{PHASE2}.json: not a valid JSON object",
    ),
    "EchoTime of two parts": (
        rewrite(f"{PHASE2}.json", EchoTime=0.009, Units="rad"),
        r"EchoTime differs between part-mag \(0.008 s\) and part-phase \(0.009 s\)",
    ),
    "one EchoTime twice": (
        rewrite(f"{PHASE2}.json", EchoTime=0.004, Units="rad"),
        "two files claim the echo time 0.004 s: .*echo-1_part-phase.* and .*echo-2_part-phase",
    ),
    "truncated": (truncate(f"{PHASE2}.nii.gz"), f"{PHASE2}.nii.gz: truncated"),
    "NaN": (replace(f"{PHASE2}.nii.gz", with_nan()), f"{PHASE2}.nii.gz: 1 voxels are NaN or infinite"),
    "blank": (replace(f"{PHASE2}.nii.gz", np.zeros(SHAPE, np.float32)), f"{PHASE2}.nii.gz: is 0 everywhere"),
    "shape": (
        replace(f"{PHASE2}.nii.gz", np.ones((6, 5, 3), np.float32)),
        rf"{PHASE2}.nii.gz: its matrix is \(6, 5, 3\), that of .* is \(6, 5, 4\); all images of a scan must share",
    ),
    "affine": (
        replace(f"{PHASE2}.nii.gz", signal()["phase"][1], affine=MOVED),
        rf"{PHASE2}.nii.gz: its position or orientation \(affine\) differs .* by up to 0.5 mm",
    ),
    "4-D without a list": (
        replace(f"{PHASE2}.nii.gz", np.ones((*SHAPE, 2), np.float32)),
        f"{PHASE2}.nii.gz: 2 volumes but 1 EchoTime",
    ),
    "not fetched": (dangle(f"{PHASE2}.nii.gz"), f"{PHASE2}.nii.gz: no such file .*fetch the data"),
    "units": (rewrite(f"{PHASE2}.json", EchoTime=0.008), r"Units differ within the series \(absent, rad\)"),
}


@pytest.mark.parametrize(("breakage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_scans_are_refused_with_file_and_remedy(tmp_path, breakage, message):
    folder = scan(dataset(tmp_path))
    breakage(folder)
    with pytest.raises(InputError, match=message):
        read_only_scan(tmp_path)


def test_a_missing_field_strength_is_fatal(tmp_path):
    scan(dataset(tmp_path), MagneticFieldStrength=None)
    with pytest.raises(InputError, match="field strength is missing"):
        read_only_scan(tmp_path)


def test_real_images_stored_with_an_offset_are_refused(tmp_path):
    parts = {"real": signal()["mag"], "imag": signal()["phase"]}
    scan(dataset(tmp_path), parts=parts, arrays=parts)
    with pytest.raises(InputError, match="part-real has no negative values"):
        read_only_scan(tmp_path)


def test_a_sheared_scan_is_refused(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 2] = 0.1
    scan(dataset(tmp_path), affine=sheared)
    with pytest.raises(InputError, match="sheared"):
        read_only_scan(tmp_path)


def test_an_outline_is_told_from_one_header(tmp_path):
    scan(dataset(tmp_path))
    (acquisition,) = index(tmp_path).acquisitions
    found = outline(acquisition)
    assert (found.header.voxels, found.echoes, found.parts, found.coils, found.maps) == (6 * 5 * 4, 3, 2, 1, 0)
    for path in (tmp_path / "sub-01/anat").glob("*.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="its header is not whole"):
        outline(acquisition)


def test_headers_are_read_at_once_and_not_far_ahead(tmp_path, monkeypatch):
    """Eight readers meet before any goes on; of 60 scans no more are read than are asked for, and 33 ahead."""
    for number in range(60):
        scan(dataset(tmp_path), f"sub-{number:02d}")
    (tmp_path / "sub-03/anat/sub-03_echo-1_part-mag_MEGRE.nii.gz").write_bytes(b"")
    meeting, begun = threading.Barrier(8, timeout=20), []

    def slow(*given, **options):
        begun.append(given)
        if len(begun) <= 8:
            meeting.wait()
        return read_header(*given, **options)

    monkeypatch.setattr(series, "read_header", slow)
    told = series.outlines(index(tmp_path).acquisitions)
    for number in range(60):
        acquisition, found = next(told)
        assert str(acquisition.key) == f"sub-{number:02d}"
        assert isinstance(found, InputError) == (number == 3)
        assert len(begun) <= number + 33
    assert list(told) == []


def test_whatever_goes_wrong_with_a_header_is_told_of_its_scan_alone(tmp_path, monkeypatch):
    for number in range(3):
        scan(dataset(tmp_path), f"sub-{number:02d}")

    def broken(path, *given, **options):
        if "sub-01" in str(path):
            raise RuntimeError("a fault of the library")
        return read_header(path, *given, **options)

    monkeypatch.setattr(series, "read_header", broken)
    found = {str(one.key): told for one, told in series.outlines(index(tmp_path).acquisitions)}
    assert [name for name, told in found.items() if isinstance(told, InputError)] == ["sub-01"]
    assert "sub-01: its headers cannot be read: RuntimeError: a fault of the library" in str(found["sub-01"])
