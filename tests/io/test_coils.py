"""Scans whose receive coils were not combined: how they are named, found, checked and read."""

import gzip
import json

import numpy as np
import pytest

from qsm_dask.errors import InputError
from qsm_dask.io.bids import index
from qsm_dask.io.phase import PhaseSign
from qsm_dask.io.series import outline, read
from qsm_dask.io.sidecars import resolve
from tests.io.bids_tree import SHAPE, TE, dataset, signal, write_image, write_json

COILS, ECHOES = 3, len(TE)


def coil_signal():
    return [signal(seed) for seed in range(COILS)]


def sidecars(folder, stem, parts=("mag", "phase"), **metadata):
    """One sidecar an echo and part, which all coils inherit."""
    for part in parts:
        for number, time in enumerate(TE, start=1):
            units = {"Units": "rad"} if part == "phase" else {}
            content = {"EchoTime": time, "MagneticFieldStrength": 3, **units, **metadata}
            write_json(folder / f"{stem}_echo-{number}_part-{part}_MEGRE.json", content)


def coil_files(root, subject="sub-01", *, first=1, extension=".nii.gz", arrays=None):
    """One file a coil, echo and part."""
    folder, stem = dataset(root) / subject / "anat", f"{subject}_rec-uncombined"
    for coil, given in enumerate(arrays or coil_signal(), start=first):
        for part, series in given.items():
            for number, stored in enumerate(series, start=1):
                write_image(folder / f"{stem}_coil-{coil:02d}_echo-{number}_part-{part}_MEGRE{extension}", stored)
    sidecars(folder, stem, (arrays or coil_signal())[0])
    return folder


def coil_axis(root, subject="sub-02", *, one_file=False):
    """One file an echo and part, coils on the fifth axis; or one file a part, with echoes on the fourth."""
    folder, stem = dataset(root) / subject / "anat", f"{subject}_rec-uncombined"
    for part in ("mag", "phase"):
        values = np.stack([given[part] for given in coil_signal()])  # coil, echo, x, y, z
        whole = values.transpose(2, 3, 4, 1, 0)
        if one_file:
            write_image(folder / f"{stem}_part-{part}_MEGRE.nii.gz", whole)
            content = {"EchoTime": list(TE), "MagneticFieldStrength": 3, "Units": "rad"}
            write_json(folder / f"{stem}_part-{part}_MEGRE.json", content)
        else:
            for number in range(len(TE)):
                write_image(
                    folder / f"{stem}_echo-{number + 1}_part-{part}_MEGRE.nii.gz", whole[:, :, :, number : number + 1]
                )
    if not one_file:
        sidecars(folder, stem)
    return folder


def only(root):
    (acquisition,) = index(root).acquisitions
    return acquisition


def read_only(root, sign="auto"):
    acquisition = only(root)
    metadata = {image.file.label: resolve(image.sidecars) for image in acquisition.images}
    return read(acquisition, metadata, PhaseSign.parse(sign))


def gathered(stream, echoes=ECHOES):
    return np.stack([volume.copy() for volume in stream(echoes)]).reshape(-1, echoes, *SHAPE)


LAYOUTS = {
    "a file a coil": coil_files,
    "not compressed": lambda root: coil_files(root, extension=".nii"),
    "coils from 0": lambda root: coil_files(root, first=0),
    "a fifth axis": coil_axis,
    "echoes and coils in one file": lambda root: coil_axis(root, one_file=True),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_volumes(tmp_path, layout):
    layout(tmp_path)
    assert str(only(tmp_path).key).endswith("_rec-uncombined")
    assert only(tmp_path).problem is None
    found = outline(only(tmp_path))
    assert (found.echoes, found.parts, found.coils) == (len(TE), 2, COILS)
    reading = read_only(tmp_path)
    assert not reading.arrays
    assert reading.coils.count == COILS
    assert reading.header["te"] == list(TE)
    assert reading.sources["phase"]["coils"] == COILS
    for stream, part in ((reading.coils.phase, "phase"), (reading.coils.magnitude, "mag")):
        expected = np.stack([given[part] for given in coil_signal()])
        np.testing.assert_array_equal(gathered(stream), expected)
        np.testing.assert_array_equal(gathered(stream, 2), expected[:, :2])


def test_the_sign_and_the_range_of_the_phase_are_those_of_all_coils(tmp_path):
    """12-bit phase that only the last coil fills; each coil alone would be refused."""
    arrays = coil_signal()
    for coil, given in enumerate(arrays):
        given["phase"] = np.clip(given["phase"] * 652 + 2048, 0, 4095 if coil == COILS - 1 else 2000).astype(np.int16)
    folder = coil_files(tmp_path, arrays=arrays)
    for path in folder.glob("*part-phase*.json"):
        write_json(path, {**json.loads(path.read_text()), "Units": "arbitrary"})
    reading = read_only(tmp_path, "-1")
    assert reading.sources["phase"]["units"].startswith("12 bit")
    stored = np.stack([given["phase"] for given in arrays])
    np.testing.assert_allclose(gathered(reading.coils.phase), -(stored - 2048) * 2 * np.pi / 4096, atol=1e-5)


def test_real_and_imaginary_coils(tmp_path):
    arrays = [
        {"real": given["mag"] * np.cos(given["phase"]), "imag": given["mag"] * np.sin(given["phase"])}
        for given in coil_signal()
    ]
    coil_files(tmp_path, arrays=arrays)
    coils = read_only(tmp_path).coils
    expected = coil_signal()
    np.testing.assert_allclose(gathered(coils.phase), [given["phase"] for given in expected], atol=1e-5)
    np.testing.assert_allclose(gathered(coils.magnitude), [given["mag"] for given in expected], rtol=1e-5)


def test_one_coil_alone_is_read_as_what_it_is(tmp_path):
    coil_files(tmp_path, arrays=coil_signal()[:1])
    reading = read_only(tmp_path)
    assert reading.coils is None
    np.testing.assert_array_equal(reading.arrays["phase"], signal(0)["phase"])


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("*coil-02*", "missing coil: coil-2 of 3 is absent"),
        ("*coil-02_echo-1*part-phase*", "missing coil: coil-2 has no part-phase image of echo-1"),
        ("*coil-03*echo-3*", "missing coil: coil-3 has no part-mag image of echo-3"),
    ],
)
def test_a_missing_coil_is_named(tmp_path, gone, message):
    folder = coil_files(tmp_path)
    for path in folder.glob(f"{gone}.nii.gz"):
        path.unlink()
    assert message in only(tmp_path).problem


def test_combined_and_single_coils_are_two_scans_or_none(tmp_path):
    folder = coil_files(tmp_path)
    for path in list(folder.glob("*coil-01*")):
        write_image(path.with_name(path.name.replace("_rec-uncombined_coil-01", "")), signal()["mag"][0])
    assert {str(a.key) for a in index(tmp_path).acquisitions} == {"sub-01", "sub-01_rec-uncombined"}
    for path in list(folder.glob("*coil-01*")):
        path.rename(path.with_name(path.name.replace("_coil-01", "")))
    problems = {str(a.key): a.problem for a in index(tmp_path).acquisitions}
    assert "tell them apart by rec-" in problems["sub-01_rec-uncombined"]


def test_a_second_file_of_a_coil_is_refused(tmp_path):
    folder = coil_files(tmp_path)
    write_image(folder / "sub-01_rec-uncombined_coil-2_echo-1_part-mag_MEGRE.nii.gz", signal()["mag"][0])
    assert "two files claim part-mag of echo-1 of coil-2" in only(tmp_path).problem


def test_coils_that_do_not_belong_together_are_refused(tmp_path):
    folder = coil_files(tmp_path / "te")
    write_json(folder / "sub-01_rec-uncombined_coil-02_echo-2_part-mag_MEGRE.json", {"EchoTime": 0.0085})
    write_json(folder / "sub-01_rec-uncombined_coil-02_echo-2_part-phase_MEGRE.json", {"EchoTime": 0.0085})
    with pytest.raises(InputError, match=r"coil-02.*echo times"):
        read_only(tmp_path / "te")
    folder = coil_files(tmp_path / "grid")
    for path in folder.glob("*coil-03*"):
        write_image(path, np.zeros((6, 5, 5), np.float32))
    with pytest.raises(InputError, match=r"coil-03.*one grid"):
        read_only(tmp_path / "grid")
    folder = coil_axis(tmp_path / "axis")
    shorter = folder / "sub-02_rec-uncombined_echo-2_part-mag_MEGRE.nii.gz"
    write_image(shorter, np.zeros((*SHAPE, 1, 2), np.float32))
    with pytest.raises(InputError, match=r"echo-2_part-mag.*has 2 coils"):
        read_only(tmp_path / "axis")


def test_damage_is_found_before_anything_is_combined_or_while_it_is(tmp_path):
    folder = coil_files(tmp_path)
    phase = folder / "sub-01_rec-uncombined_coil-03_echo-2_part-phase_MEGRE.nii.gz"
    whole = phase.read_bytes()
    phase.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="coil-03_echo-2_part-phase"):
        read_only(tmp_path)
    phase.write_bytes(whole)
    magnitude = folder / "sub-01_rec-uncombined_coil-02_echo-3_part-mag_MEGRE.nii.gz"
    content = bytearray(magnitude.read_bytes())
    content[-6] ^= 1  # in the checksum: the volume itself can be decoded
    magnitude.write_bytes(bytes(content))
    with pytest.raises(InputError, match="coil-02_echo-3_part-mag"):
        gathered(read_only(tmp_path).coils.magnitude)
    magnitude.write_bytes(gzip.compress(gzip.decompress(whole)[:352] + bytes(4 * 6 * 5 * 4)))
    with pytest.raises(InputError, match="is 0 everywhere"):
        gathered(read_only(tmp_path).coils.magnitude)


def test_magnitudes_alone_are_skipped_as_of_any_scan(tmp_path):
    coil_files(tmp_path, arrays=[{"mag": given["mag"]} for given in coil_signal()])
    with pytest.raises(InputError, match="no phase"):
        read_only(tmp_path)
