"""Calcification and microbleed candidates: sources put in by hand."""

import numpy as np
import pytest

from qsm_dask.kernels.candidates import candidates
from qsm_dask.quantities import COORDINATES
from tests.kernels.analytic import ellipsoid, positions

SHAPE, SIZE = (60, 64, 50), (1.0, 1.0, 1.2)
TURNED = np.array([[0.0, -1.0, 0.0, 12.0], [1.0, 0.0, 0.0, -30.0], [0.0, 0.0, 1.2, 5.0], [0.0, 0.0, 0.0, 1.0]])


def ball(centre, radius):
    return ellipsoid(SHAPE, SIZE, (radius,) * 3, centre)


@pytest.fixture(scope="module")
def head():
    """A bleed, a calcification, a vein beside a nucleus, a source at the rim and one voxel."""
    mask = ellipsoid(SHAPE, SIZE, (28, 30, 28))
    dseg = np.zeros(SHAPE, np.int32)
    dseg[ball((38, 30, 24), 5.0)] = 11
    dseg[ball((20, 44, 24), 4.0)] = 2**30
    chi = np.random.default_rng(0).normal(0, 0.01, SHAPE)
    bleed, calcified = ball((38, 40, 24), 2.2), ball((20, 36, 24), 3.0)
    chi[bleed], chi[calcified] = 0.5, -0.4
    x, _, z = positions(SHAPE, SIZE)
    vein = ((x - 2) ** 2 + z**2 < 2.0) & mask & (np.abs(np.arange(64) - 20)[:, None] < 9)
    chi[vein] = 0.35
    dseg[vein] = 40
    chi[ball((30, 4, 24), 2.0)] = 0.6
    chi[30, 50, 30] = 0.9
    return chi.astype(np.float32), mask, dseg, bleed, calcified


def told(rows):
    return [dict(zip(COORDINATES["property"], row, strict=True)) for row in rows]


def test_a_bleed_and_a_calcification_are_found_and_nothing_else(head):
    chi, mask, dseg, bleed, calcified = head
    found = candidates(chi, mask, SIZE, TURNED, dseg)
    assert found.shape == (2, len(COORDINATES["property"]))
    stone, blood = told(found)  # the stronger first
    assert (stone["sign"], blood["sign"]) == (-1, 1)
    for one, where, value in ((stone, calcified, -0.4), (blood, bleed, 0.5)):
        assert one["n"] == np.count_nonzero(where)
        assert one["volume_mm3"] == pytest.approx(1.2 * np.count_nonzero(where))
        assert one["mass"] == pytest.approx(value * one["volume_mm3"], rel=1e-5)
        assert one["peak"] == pytest.approx(value)
        assert one["elongation"] < 1.3
        centre = np.argwhere(where).mean(axis=0)
        assert [one["x_mm"], one["y_mm"], one["z_mm"]] == pytest.approx((TURNED @ [*centre, 1])[:3], abs=1e-4)
    # The bleed lies 10 mm from the middle of a ball of 5 mm, the calcification 8 from one of 4.
    assert (blood["nearest_label"], stone["nearest_label"]) == (11, 2**30)
    assert blood["distance_mm"] == pytest.approx(6, abs=1.0)
    assert stone["distance_mm"] == pytest.approx(5, abs=1.0)


@pytest.mark.parametrize(
    ("options", "signs"),
    [
        ({"most_elongation": 99.0}, [-1, 1, 1]),  # the vein too
        ({"most_elongation": 99.0, "vein_labels": (40,)}, [-1, 1]),
        ({"rim_mm": 0.0}, [-1, 1, 1]),  # and what lies at the rim
        ({"least_mm3": 1.0, "least_voxels": 1}, [-1, 1, 1]),  # and the single voxel
        ({"least_mm3": 1.0}, [-1, 1]),
        ({"least_voxels": 1}, [-1, 1]),
        ({"most_mm3": 70.0}, [1]),
        ({"above_ppm": 0.55}, [-1]),
        ({"below_ppm": -0.5}, [1]),
    ],
)
def test_each_rule_leaves_out_what_it_is_for(head, options, signs):
    chi, mask, dseg, *_ = head
    assert sorted(candidates(chi, mask, SIZE, TURNED, dseg, **options)[:, 0]) == signs


def test_without_labels_no_region_is_near(head):
    chi, mask, *_ = head
    for dseg in (None, np.zeros(SHAPE, np.int32)):
        for row in told(candidates(chi, mask, SIZE, TURNED, dseg)):
            assert row["nearest_label"] == 0
            assert np.isnan(row["distance_mm"])


def test_a_head_without_strong_sources_has_an_empty_table(head):
    _, mask, dseg, *_ = head
    found = candidates(np.zeros(SHAPE, np.float32), mask, SIZE, TURNED, dseg)
    assert found.shape == (0, len(COORDINATES["property"]))
    assert found.dtype == np.float64


def test_faults_are_refused(head):
    chi, mask, dseg, *_ = head
    for options, words in (
        ({"below_ppm": 0.1}, "the one is negative"),
        ({"above_ppm": 0.0}, "above_ppm"),
        ({"rim_mm": -1.0}, "rim_mm"),
    ):
        with pytest.raises(ValueError, match=words):
            candidates(chi, mask, SIZE, TURNED, dseg, **options)
    with pytest.raises(ValueError, match="4 x 4"):
        candidates(chi, mask, SIZE, TURNED[:3], dseg)
    with pytest.raises(ValueError, match="dseg"):
        candidates(chi, mask, SIZE, TURNED, dseg[1:])
