"""Simulated datasets: names, sidecars, stored numbers and truth."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_dask import phantom
from qsm_dask.engine import SerialEngine
from qsm_dask.errors import ConfigError, EngineError
from qsm_dask.workflow import simulate

SHAPE = (32, 32, 24)
TE = (0.004, 0.010, 0.016)


def load(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two oblique subjects of known age."""
    out = tmp_path_factory.mktemp("simulated") / "bids"
    truth = simulate.run(out, subjects=2, seed=5, shape=SHAPE, te=TE, oblique=True, ages=(30.0, 70.5), snr=50.0)
    assert truth == out / "derivatives" / "truth"
    return out


def test_every_echo_has_magnitude_phase_and_sidecars(dataset: Path) -> None:
    names = {path.name for path in (dataset / "sub-01" / "anat").iterdir()}
    assert names == {
        f"sub-01_echo-{echo}_part-{part}_MEGRE.{ending}"
        for echo in (1, 2, 3)
        for part in ("mag", "phase")
        for ending in ("nii.gz", "json")
    }


def test_sidecars_say_what_a_reconstruction_needs(dataset: Path) -> None:
    stem = dataset / "sub-02" / "anat" / "sub-02_echo-2_part-phase_MEGRE.json"
    sidecar = json.loads(stem.read_text())
    assert sidecar["EchoTime"] == 0.010
    assert sidecar["MagneticFieldStrength"] == 3.0
    assert sidecar["ImagingFrequency"] == pytest.approx(3.0 * 42.577)
    assert sidecar["Units"] == "arbitrary"


def test_participants_are_listed_with_age_and_sex(dataset: Path) -> None:
    lines = [line.split("\t") for line in (dataset / "participants.tsv").read_text().splitlines()]
    assert lines[0] == ["participant_id", "age", "sex"]
    assert [line[:2] for line in lines[1:]] == [["sub-01", "30"], ["sub-02", "70.5"]]
    assert {line[2] for line in lines[1:]} <= {"F", "M"}


def test_phase_is_stored_as_twelve_bits_that_the_header_rescales(dataset: Path) -> None:
    image = nib.load(dataset / "sub-01" / "anat" / "sub-01_echo-1_part-phase_MEGRE.nii.gz")
    assert (image.dataobj.slope, image.dataobj.inter) == (2.0, -4096.0)
    stored = np.asarray(image.dataobj.get_unscaled())
    assert stored.min() >= 0
    assert stored.max() <= 4095
    made = phantom.simulate(1, 5, shape=SHAPE, te=TE, oblique=True, age=30.0, snr=50.0)
    radians = np.asarray(image.dataobj) * math.pi / 4096.0
    error = np.angle(np.exp(1j * (radians - made.arrays["phase"][0])))
    assert np.abs(error).max() < math.pi / 4096.0 + 1e-5


def test_magnitudes_of_all_echoes_share_one_gain(dataset: Path) -> None:
    made = phantom.simulate(1, 5, shape=SHAPE, te=TE, oblique=True, age=30.0, snr=50.0)
    gain = 4095.0 / made.arrays["magnitude"].max()
    for echo in range(3):
        stored = load(dataset / "sub-01" / "anat" / f"sub-01_echo-{echo + 1}_part-mag_MEGRE.nii.gz")
        assert np.abs(stored - gain * made.arrays["magnitude"][echo]).max() < 0.51


def test_an_oblique_affine_is_a_rotation_times_the_voxel_size(dataset: Path) -> None:
    for subject in ("sub-01", "sub-02"):
        image = nib.load(dataset / subject / "anat" / f"{subject}_echo-1_part-mag_MEGRE.nii.gz")
        columns = image.affine[:3, :3]
        spacing = np.array([192.0 / 32, 224.0 / 32, 160.0 / 24])
        assert columns.T @ columns == pytest.approx(np.diag(spacing**2), abs=1e-3)
        assert (columns / spacing)[2, 2] < 0.97  # 14 degrees and more


def test_truth_has_the_units_of_bids(dataset: Path) -> None:
    made = phantom.simulate(2, 5, shape=SHAPE, te=TE, oblique=True, age=70.5, snr=50.0)
    folder = dataset / "derivatives" / "truth" / "sub-02"
    chi, relaxation = load(folder / "anat" / "sub-02_Chimap.nii.gz"), load(folder / "anat" / "sub-02_R2starmap.nii.gz")
    assert np.array_equal(chi, made.truth["chi"])
    assert np.array_equal(relaxation, made.truth["r2star"])
    assert json.loads((folder / "anat" / "sub-02_Chimap.json").read_text())["Units"] == "ppm"
    for name in ("local", "total"):
        hertz = load(folder / "fmap" / f"sub-02_desc-{name}_fieldmap.nii.gz")
        assert hertz == pytest.approx(127.731 * made.truth[f"{name}_field"], rel=1e-5, abs=1e-6)
        assert json.loads((folder / "fmap" / f"sub-02_desc-{name}_fieldmap.json").read_text())["Units"] == "Hz"
    assert np.array_equal(load(folder / "anat" / "sub-02_desc-brain_mask.nii.gz"), made.truth["mask"])
    assert np.array_equal(load(folder / "anat" / "sub-02_dseg.nii.gz"), made.truth["dseg"])


def test_sources_add_up_in_susceptibility_and_in_relaxation(dataset: Path) -> None:
    folder = dataset / "derivatives" / "truth" / "sub-01" / "anat"
    names = ("Chimap", "desc-paramagnetic_Chimap", "desc-diamagnetic_Chimap", "R2starmap", "R2map", "desc-brain_mask")
    chi, para, dia, r2star, r2, mask = (load(folder / f"sub-01_{name}.nii.gz") for name in names)
    assert para.min() >= 0.0 >= dia.max()
    assert para + dia == pytest.approx(chi, abs=1e-6)
    assert r2star - r2 == pytest.approx(137.0 * (para - dia), abs=1e-3)  # 3 T
    assert r2[mask > 0].min() > 0.0


def test_spin_echoes_measure_r2_and_change_nothing_else(tmp_path: Path) -> None:
    plain, measured = tmp_path / "plain", tmp_path / "measured"
    for out in (plain, measured):
        simulate.run(out, subjects=1, shape=SHAPE, te=TE, spin_echo=out is measured)
    assert not (plain / "derivatives" / "spinecho").exists()
    found = load(measured / "derivatives" / "spinecho" / "sub-01" / "anat" / "sub-01_R2map.nii.gz")
    assert json.loads(next(measured.glob("derivatives/spinecho/*/*/*.json")).read_text())["Units"] == "1/s"
    anat = measured / "derivatives" / "truth" / "sub-01" / "anat"
    truth, mask = load(anat / "sub-01_R2map.nii.gz"), load(anat / "sub-01_desc-brain_mask.nii.gz") > 0
    error = (found - truth)[mask]
    # Six echoes over 75 ms at an SNR of 100, the first at 20 % more than the gradient echo's: about 0.3 1/s.
    assert 0.1 < error.std() < 0.6
    assert abs(error.mean()) < 0.05
    raw = sorted(path.relative_to(plain) for path in plain.glob("sub-01/anat/*"))
    assert all((plain / path).read_bytes() == (measured / path).read_bytes() for path in raw)


def test_the_label_table_tells_what_can_be_compared(dataset: Path) -> None:
    table = dataset / "derivatives" / "truth" / "sub-01" / "anat" / "sub-01_dseg.tsv"
    header, *lines = [line.split("\t") for line in table.read_text().splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert {int(row["index"]): row["name"] for row in rows} == dict(phantom.LABELS)
    comparable = {row["name"] for row in rows if row["comparable"] == "true"}
    # Voxels of 7 mm: only the thalamus, 20 mm thick, spans two in every direction.
    assert comparable == {"thalamus_left", "thalamus_right"}
    labels = load(table.with_name("sub-01_dseg.nii.gz"))
    thalamus = next(row for row in rows if row["name"] == "thalamus_left")
    inside = labels == int(thalamus["index"])
    assert float(thalamus["volume_mm3"]) == pytest.approx(np.count_nonzero(inside) * 6.0 * 7.0 * 160.0 / 24.0)
    chi = load(table.with_name("sub-01_Chimap.nii.gz"))
    assert float(thalamus["mean_chi_ppm"]) == pytest.approx(chi[inside].mean(dtype=np.float64), rel=1e-6)


def test_a_subject_is_the_same_in_a_cohort_of_any_size(tmp_path: Path) -> None:
    for subjects in (1, 2):
        simulate.run(tmp_path / str(subjects), subjects=subjects, seed=3, shape=SHAPE, te=TE)
    assert contents(tmp_path / "1" / "sub-01") == contents(tmp_path / "2" / "sub-01")


def test_an_engine_writes_the_same_bytes_and_reports_every_subject(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    simulate.run(tmp_path / "loop", subjects=2, seed=3, shape=SHAPE, te=TE)
    simulate.run(
        tmp_path / "engine",
        subjects=2,
        seed=3,
        shape=SHAPE,
        te=TE,
        engine=SerialEngine(limit=1 << 30),
        progress=lambda *report: seen.append(report),
    )
    assert contents(tmp_path / "loop") == contents(tmp_path / "engine")
    assert seen == [(1, 2, "sub-01"), (2, 2, "sub-02")]


def test_subjects_that_do_not_fit_a_worker_are_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"2 of 2 subjects could not be simulated; sub-01: .*GiB"):
        simulate.run(tmp_path / "bids", subjects=2, shape=SHAPE, te=TE, engine=SerialEngine(limit=1 << 20))


def test_the_same_simulation_may_be_written_again(tmp_path: Path) -> None:
    for _ in range(2):
        simulate.run(tmp_path / "bids", subjects=1, seed=3, shape=SHAPE, te=TE)
    before = contents(tmp_path / "bids")
    with pytest.raises(ConfigError, match="holds something other than this simulation"):
        simulate.run(tmp_path / "bids", subjects=1, seed=4, shape=SHAPE, te=TE)
    assert contents(tmp_path / "bids") == before


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="give another folder"):
        simulate.run(tmp_path, subjects=1, shape=SHAPE, te=TE)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_cohort_without_calcification_says_so(tmp_path: Path) -> None:
    truth = simulate.run(tmp_path / "bids", subjects=1, seed=3, shape=SHAPE, te=TE[:1], calcified=False)
    assert "no calcification" in (tmp_path / "bids" / "README").read_text()
    made = phantom.simulate(1, 3, shape=SHAPE, te=TE[:1], calcified=False)
    assert np.array_equal(load(truth / "sub-01" / "anat" / "sub-01_Chimap.nii.gz"), made.truth["chi"])


@pytest.mark.parametrize(("phase_format", "units"), [("unsigned", "arbitrary"), ("radians", "rad")])
def test_other_ways_to_store_phase(tmp_path: Path, phase_format: simulate.PhaseFormat, units: str) -> None:
    simulate.run(tmp_path / "bids", subjects=1, seed=3, shape=SHAPE, te=TE[:1], phase_format=phase_format)
    stem = tmp_path / "bids" / "sub-01" / "anat" / "sub-01_echo-1_part-phase_MEGRE"
    values = load(stem.with_suffix(".nii.gz"))
    made = phantom.simulate(1, 3, shape=SHAPE, te=TE[:1]).arrays["phase"][0]
    radians = values if units == "rad" else (values.astype(np.float64) - 2048.0) * math.pi / 2048.0
    assert np.abs(np.angle(np.exp(1j * (radians - made)))).max() < math.pi / 4096.0 + 1e-5
    assert json.loads(stem.with_suffix(".json").read_text())["Units"] == units


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subjects": 0}, "at least one subject"),
        ({"ages": (30.0, 40.0)}, "2 ages for 1 subjects"),
        ({"ages": (300.0,)}, "from 0 to 110"),
        ({"shape": (2, 32, 24)}, "too small"),
        ({"te": (4.0, 8.0)}, "in seconds"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_unusable_parameters_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate.run(tmp_path / "bids", **{"subjects": 1, "shape": SHAPE, "te": TE, **wrong})  # type: ignore[arg-type]
    assert not (tmp_path / "bids").exists()


def test_coils_are_files_of_their_own_and_the_truth_is_the_same(tmp_path: Path) -> None:
    for coils in (0, 3):
        simulate.run(tmp_path / str(coils), subjects=1, seed=3, shape=SHAPE, te=TE, coils=coils)
    names = {path.name for path in (tmp_path / "3" / "sub-01" / "anat").glob("*.nii.gz")}
    assert names == {
        f"sub-01_coil-0{coil}_echo-{echo}_part-{part}_MEGRE.nii.gz"
        for coil in (1, 2, 3)
        for echo in (1, 2, 3)
        for part in ("mag", "phase")
    }
    truths = [contents(tmp_path / coils / "derivatives" / "truth" / "sub-01") for coils in ("0", "3")]
    assert truths[0].keys() == truths[1].keys()
    assert all(truths[0][name] == truths[1][name] for name in truths[0] if not name.endswith(".json"))
    with pytest.raises(ConfigError, match="two echoes"):
        simulate.run(tmp_path / "one", subjects=1, shape=SHAPE, te=TE[:1], coils=3)


def test_the_squares_of_the_coils_without_noise_add_up_to_the_combined_image() -> None:
    made = phantom.simulate(1, 3, shape=SHAPE, te=TE, snr=math.inf)
    squares, strongest = 0.0, []
    for magnitude, phase in made.coils(4):
        squares = squares + magnitude.astype(np.float64) ** 2
        turned = np.angle(np.exp(1j * (phase - made.arrays["phase"])))  # what this coil adds, at every echo the same
        lit = magnitude.min(axis=0) > 1e-6 * magnitude.max()
        assert np.abs(np.angle(np.exp(1j * (turned[1:] - turned[:1]))))[:, lit].max() < 1e-3
        strongest.append(np.unravel_index(np.argmax(magnitude[0]), SHAPE))
    np.testing.assert_allclose(np.sqrt(squares), made.arrays["magnitude"], rtol=1e-4, atol=1e-6)
    assert len(set(strongest)) == 4  # each sees another side


def test_the_noise_of_a_coil_is_that_of_the_combined_image() -> None:
    made = phantom.simulate(1, 3, shape=SHAPE, te=TE, snr=40.0)
    exact = phantom.simulate(1, 3, shape=SHAPE, te=TE, snr=math.inf)
    sigma = exact.arrays["magnitude"][0][exact.truth["mask"]].mean() / 40.0
    noises = []
    for noisy, clean in zip(made.coils(3), exact.coils(3), strict=True):
        difference = noisy[0] * np.exp(1j * noisy[1]) - clean[0] * np.exp(1j * clean[1])
        assert difference.real.std() == pytest.approx(sigma, rel=0.02)
        noises.append(difference.ravel())
    assert np.abs(np.corrcoef(noises)[0, 1:]).max() < 0.02


@pytest.mark.slow
def test_the_bids_validator_accepts_raw_data_and_truth(dataset: Path, tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("bids-validator-deno")
    validator = shutil.which("bids-validator-deno") or (str(beside) if beside.exists() else None)
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    simulate.run(tmp_path / "coils", subjects=1, seed=3, shape=SHAPE, te=TE, coils=2)
    for folder in (dataset, dataset / "derivatives" / "truth", tmp_path / "coils"):
        done = subprocess.run([validator, "--ignoreWarnings", str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
