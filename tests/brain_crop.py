"""A BIDS dataset of the human brain crop in ROMEO.jl's test data.

    python -m tests.brain_crop OUT [CROP]

The crop (github.com/korbinian90/ROMEO.jl, MIT) comes as two 4-D NIfTI files without
metadata. Three things are assumed, as its authors' tests and the file tell them: the
echo times are 4, 8 and 12 ms; the stored phase, which spans ±0.00367 because of a wrong
`scl_slope`, means ±pi; the field strength, which nobody states, is 7 T.
"""

import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

TE_S = (0.004, 0.008, 0.012)
B0_T = 7.0


def data_folder() -> Path:
    """The folder of the real data for tests; it may be absent."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("QSM_DASK_TEST_DATA", beside))


def make_bids(out: Path, crop: Path | None = None) -> Path:
    """Write the crop as BIDS into `out`, one image an echo and part; returns `out`."""
    crop = crop or data_folder() / "romeo-brain-crop"
    magnitude, phase = nib.load(crop / "Mag.nii.gz"), nib.load(crop / "Phase.nii.gz")
    slope = float(phase.dataobj.slope)  # undone: what is stored spans ±pi already
    volumes = {"mag": magnitude.get_fdata(dtype=np.float32), "phase": phase.get_fdata(dtype=np.float32) / slope}
    folder = out / "sub-crop" / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    description = {"Name": "Brain crop of ROMEO.jl", "BIDSVersion": "1.11.1", "DatasetType": "raw", "License": "MIT"}
    (out / "dataset_description.json").write_text(json.dumps(description, indent=1))
    for echo, te in enumerate(TE_S, start=1):
        for part, data in volumes.items():
            stem = f"sub-crop_echo-{echo}_part-{part}_MEGRE"
            nib.save(nib.Nifti1Image(data[..., echo - 1], magnitude.affine), folder / f"{stem}.nii.gz")
            values = {"EchoTime": te, "MagneticFieldStrength": B0_T}
            if part == "phase":
                values["Units"] = "rad"
            (folder / f"{stem}.json").write_text(json.dumps(values, indent=1))
    return out


if __name__ == "__main__":
    print(make_bids(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
