"""BIDS datasets written by the independent package qsm-forward, in four geometries.

Usage: python -m tests.forward_datasets OUT

The package writes the first three itself. For an oblique anisotropic scan it would write a
sheared affine, so that one is put together here from the package's own functions, with an
affine of a rotation times the voxel size.
"""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import qsm_forward

ECHOES = np.array([0.004, 0.012, 0.020, 0.028])
TILT = np.deg2rad(32.5)
SHAPE = (100, 100, 100)


def phantom(shape=SHAPE):
    """Cylinders of 0.05, 0.1, 0.2 and 0.5 ppm in a large one of 0.005 ppm."""
    return qsm_forward.generate_susceptibility_phantom(list(shape), 0.0, 0.005, [4, 4, 4, 7], [0.05, 0.1, 0.2, 0.5])


def by_package(out: Path, **recon) -> None:
    """A dataset exactly as qsm-forward writes it."""
    given = {"TEs": ECHOES, "peak_snr": 100, "random_seed": 7, **recon}
    qsm_forward.generate_bids(qsm_forward.TissueParams(chi=phantom()), qsm_forward.ReconParams(**given), str(out))


def echo_of(field, mask, offset, te: float, b0: float):
    """The complex signal of one echo, without noise: one relaxation in all of the mask."""
    return qsm_forward.generate_signal(
        field,
        B0=b0,
        TR=0.05,
        TE=te,
        flip_angle=15,
        phase_offset=offset,
        R1=mask * 1.0,
        R2star=mask * 50.0,
        M0=mask * 1.0,
    )


def oblique_anisotropic(out: Path, voxel=(0.8, 0.8, 2.0), b0=7.0) -> None:
    """0.8x0.8x2 mm tilted by 32.5 degrees, simulated at 0.8 mm and cropped in k-space along z."""
    rotation = np.array([[1, 0, 0], [0, np.cos(TILT), -np.sin(TILT)], [0, np.sin(TILT), np.cos(TILT)]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(voxel)
    chi = phantom()
    mask = chi != 0
    field = qsm_forward.generate_field(chi, mask, voxel_size=[0.8] * 3, B0_dir=rotation[2])
    _, field, _ = qsm_forward.generate_shimmed_field(field, mask, order=2)
    offset = qsm_forward.generate_phase_offset(mask.astype(float), mask, mask.shape)
    coarse = [SHAPE[0], SHAPE[1], round(SHAPE[2] * 0.8 / voxel[2])]
    rng = np.random.default_rng(7)
    anat = out / "sub-1" / "anat"
    anat.mkdir(parents=True)
    for number, te in enumerate(ECHOES, start=1):
        signal = echo_of(field, mask, offset, te, b0)
        signal = qsm_forward.add_noise(qsm_forward.crop_kspace(signal, coarse), peak_snr=100, rng=rng)
        for part, image in (("mag", np.abs(signal)), ("phase", np.angle(signal))):
            name = f"sub-1_echo-{number}_part-{part}_MEGRE"
            nib.save(nib.Nifti1Image(image.astype(np.float32), affine), anat / f"{name}.nii")
            sidecar = {"EchoTime": te, "MagneticFieldStrength": b0, **({"Units": "rad"} if part == "phase" else {})}
            (anat / f"{name}.json").write_text(json.dumps(sidecar))
    fine = affine.copy()
    fine[:3, :3] = rotation @ np.diag([0.8] * 3)
    truth = np.abs(qsm_forward.crop_kspace(chi.astype(complex), coarse))
    derivatives = out / "derivatives" / "qsm-forward" / "sub-1" / "anat"
    derivatives.mkdir(parents=True)
    nib.save(nib.Nifti1Image(truth.astype(np.float32), affine), derivatives / "sub-1_Chimap.nii")
    (out / "dataset_description.json").write_text(json.dumps({"Name": "oblique anisotropic", "BIDSVersion": "1.11.0"}))


def main() -> None:
    out = Path(sys.argv[1])
    by_package(out / "axial-isotropic-3t", B0=3)
    by_package(out / "axial-anisotropic-3t", B0=3, voxel_size=np.array([1.0, 1.0, 2.0]))
    by_package(out / "oblique-isotropic-7t", B0=7, B0_dir=np.array([0.0, np.sin(TILT), np.cos(TILT)]))
    oblique_anisotropic(out / "oblique-anisotropic-7t")


if __name__ == "__main__":
    main()
