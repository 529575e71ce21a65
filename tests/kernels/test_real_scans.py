"""From phase to field on the two real scans, where they are at hand."""

import nibabel as nib
import numpy as np
import pytest

from qsm_dask.kernels.fieldmap import weighted_mean
from qsm_dask.kernels.masking import magnitude, phase_quality
from qsm_dask.kernels.offsets import mcpc3ds
from qsm_dask.kernels.relaxometry import arlo, loglinear
from qsm_dask.kernels.unwrap.romeo import romeo
from qsm_dask.units import radians_per_ppm
from tests.brain_crop import B0_T, TE_S, data_folder


def philips_head():
    folder = data_folder() / "philips-3t-two-echo" / "bids" / "sub-philips" / "anat"
    if not folder.is_dir():
        pytest.skip(f"the Philips head is not at {folder}")

    def read(part):
        paths = [folder / f"sub-philips_echo-{echo}_part-{part}_MEGRE.nii.gz" for echo in (1, 2)]
        return np.stack([np.asarray(nib.load(path).dataobj, np.float32) for path in paths])

    return read("phase"), read("mag"), np.array([0.0023, 0.0046]), (3.0, 3.0, 3.0), 3.0


def brain_crop():
    folder = data_folder() / "romeo-brain-crop"
    if not folder.is_dir():
        pytest.skip(f"the brain crop is not at {folder}")
    phase, strength = (
        np.moveaxis(np.asarray(nib.load(folder / name).dataobj, np.float32), -1, 0)
        for name in ("Phase.nii.gz", "Mag.nii.gz")
    )
    return phase * np.float32(np.pi / np.abs(phase).max()), strength, np.array(TE_S), (0.46875, 0.46875, 1.0), B0_T


@pytest.mark.parametrize("scan", [philips_head, brain_crop])
def test_phase_grows_in_proportion_to_echo_time(scan):
    """One turn too many in one echo would show as several radians."""
    phase, strength, te, size, b0 = scan()
    mask, _ = phase_quality(phase, magnitude(strength, size), te, strength)
    phase, _ = mcpc3ds(phase, mask, te, size, strength)
    unwrapped = romeo(phase, mask, te, strength)
    field, _ = weighted_mean(unwrapped, mask, te, b0, strength)
    for echo, time in enumerate(te):
        rest = (unwrapped[echo] - field * radians_per_ppm(b0, time))[mask]
        assert rest.std() < 0.1
        assert np.mean(np.abs(rest) > 1) < 1e-3
    assert np.abs(np.median(field[mask])) < 0.5


def test_the_mask_of_the_head_is_the_brain_with_little_else():
    """An adult brain has 1.0 to 1.6 litres; the air and the vault's scalp are out."""
    phase, strength, te, size, _ = philips_head()
    mask, _ = phase_quality(phase, magnitude(strength, size), te, strength)
    assert 1.1e6 < np.count_nonzero(mask) * 27 < 2.4e6
    assert mask[40, 40, 25]
    assert mask[34:46, 30:50, 28:36].all()
    bright = strength[0] > 0.3 * np.percentile(strength[0], 95)
    vault = 42
    first, last = np.flatnonzero(bright[40, :, vault])[[0, -1]]
    assert not mask[40, first : first + 2, vault].any()
    assert not mask[40, last - 1 : last + 1, vault].any()


def test_the_crop_without_air_is_kept_and_decays():
    phase, strength, te, size, _ = brain_crop()
    whole = magnitude(strength, size)
    assert whole.mean() > 0.99
    kept, _ = phase_quality(phase, whole, te, strength)
    assert kept.mean() > 0.95
    for fit in (arlo, loglinear):
        assert 20 < np.median(fit(strength, te, kept)[kept]) < 50
