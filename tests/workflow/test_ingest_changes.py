"""A scan that is in the cohort already: what counts as a change of its files, and what is then read again."""

import numpy as np
import pytest

from qsm_dask.cohort import conversion
from qsm_dask.io import changes
from qsm_dask.store import CohortStore
from tests.io.bids_tree import AFFINE, scan, signal, write_image, write_json
from tests.workflow.ingesting import commit_of, counts, run, touch_later


def test_nothing_is_read_again_when_nothing_changed(root, cohort, monkeypatch):
    scan(root, "sub-01")
    scan(root, "sub-02")
    run(root, cohort)
    before = {name: commit_of(cohort, name) for name in ("sub-01", "sub-02")}
    segments = sorted((cohort.place.folder / "index").iterdir())
    monkeypatch.setattr(conversion, "read", None)
    monkeypatch.setattr(conversion, "resolve", None)
    assert counts(run(root, cohort)) == (0, 2, 0, 0)
    assert {name: commit_of(cohort, name) for name in before} == before
    assert sorted((cohort.place.folder / "index").iterdir()) == segments


def test_new_times_and_comments_only_renew_the_cache(root, cohort, monkeypatch):
    folder = scan(root, "sub-01", MagneticFieldStrength=None)
    write_json(root / "MEGRE.json", {"MagneticFieldStrength": 3})
    run(root, cohort)
    before = commit_of(cohort, "sub-01")
    write_json(root / "MEGRE.json", {"MagneticFieldStrength": 3.0, "Comment": "a comment"})
    touch_later(folder / "sub-01_echo-1_part-mag_MEGRE.nii.gz")
    monkeypatch.setattr(conversion, "read", None)
    assert counts(run(root, cohort)) == (0, 1, 0, 0)
    after = commit_of(cohort, "sub-01")
    assert after == before
    assert cohort.recall(after)["files"] != before.attributes["files"]
    monkeypatch.setattr(conversion, "resolve", None)
    assert counts(run(root, cohort)) == (0, 1, 0, 0)


def test_another_compression_of_the_same_voxels_changes_no_array(root, cohort):
    folder = scan(root, "sub-01")
    run(root, cohort)
    before = commit_of(cohort, "sub-01")
    for path in folder.glob("*.nii.gz"):
        path.unlink()
    scan(root, "sub-01", extension=".nii")
    assert counts(run(root, cohort)) == (0, 1, 0, 0)
    after = commit_of(cohort, "sub-01")
    assert (after.digest, after.attributes["digests"]) == (before.digest, before.attributes["digests"])
    assert all(name.endswith((".nii", ".json")) for name in after.attributes["files"])


def change_voxel(folder):
    stored = signal()["phase"][1].copy()
    stored[3, 3, 3] += 0.25
    write_image(folder / "sub-01_echo-2_part-phase_MEGRE.nii.gz", stored)


def change_echo_time(folder):
    for part in ("mag", "phase"):
        path = folder / f"sub-01_echo-2_part-{part}_MEGRE.json"
        path.write_text(path.read_text().replace("0.008", "0.009"))


def change_position(folder):
    affine = AFFINE.copy()
    affine[0, 3] += 5
    scan(folder.parents[1], "sub-01", affine=affine)


@pytest.mark.parametrize(
    ("change", "changed"),
    [(change_voxel, {"phase"}), (change_echo_time, {"te"}), (change_position, {"affine"})],
)
def test_a_change_changes_the_digest_of_its_quantity_only(root, cohort, change, changed):
    folder = scan(root, "sub-01")
    scan(root, "sub-02")
    run(root, cohort)
    before, other = commit_of(cohort, "sub-01"), commit_of(cohort, "sub-02")
    change(folder)
    assert counts(run(root, cohort)) == (1, 1, 0, 0)
    after = commit_of(cohort, "sub-01")
    digests, known = after.attributes["digests"], before.attributes["digests"]
    assert {name for name in digests if digests[name] != known[name]} == changed
    assert after.attempt != before.attempt
    assert commit_of(cohort, "sub-02") == other


def test_another_phase_sign_is_a_change_of_the_scans_it_names(root, cohort):
    scan(root, "sub-01")
    scan(root, "sub-02")
    run(root, cohort)
    assert counts(run(root, cohort, phase_sign="sub-02=-1")) == (1, 1, 0, 0)
    phase = cohort.read(commit_of(cohort, "sub-02"), ["phase"])["phase"]
    np.testing.assert_array_equal(phase, -signal()["phase"])


def test_what_a_rival_took_in_meanwhile_stays(root, cohort, monkeypatch):
    """A driver finds that times changed only; before it notes that, another one takes in new voxels."""
    folder = scan(root, "sub-01")
    run(root, cohort)
    touch_later(folder / "sub-01_echo-1_part-mag_MEGRE.nii.gz")
    same_content = changes.same_content

    def late(*known):
        same = same_content(*known)
        monkeypatch.undo()
        change_voxel(folder)
        assert counts(run(root, CohortStore.open(cohort.place.folder))) == (1, 0, 0, 0)
        return same

    monkeypatch.setattr(changes, "same_content", late)
    assert counts(run(root, cohort)) == (0, 1, 0, 0)
    phase = cohort.read(commit_of(cohort, "sub-01"), ["phase"])["phase"]
    assert phase[1, 3, 3, 3] == pytest.approx(signal()["phase"][1, 3, 3, 3] + 0.25)
    assert counts(run(root, cohort)) == (0, 1, 0, 0)
