"""Files in and out: BIDS datasets, sidecars, NIfTI volumes; the only room that imports nibabel."""
