"""HARPERELLA: harmonic fields and turns, a dense float64 solution, sources inside and outside, and what it refuses."""

import numpy as np
import pytest
from scipy import linalg, ndimage

from qsm_dask.kernels.background.harperella import SmallestField, harperella
from qsm_dask.kernels.background.lbv import enclosed
from qsm_dask.kernels.multigrid import Poisson
from qsm_dask.kernels.phaselaplacian import phase_laplacian
from tests.kernels.analytic import AXIAL, OBLIQUE, dipole_field, ellipsoid, head, positions, relative_error
from tests.kernels.fields import HZ_PER_PPM_PER_T, smooth, wrap

B0 = 3.0
TE = np.array([0.004, 0.011, 0.02])
GRIDS = [((18, 20, 19), (2.0, 2.0, 2.0)), ((27, 25, 15), (1.0, 1.2, 2.5)), ((33, 30, 12), (0.5, 0.5, 3.0))]


def phase_of(field, te=TE):
    """Wrapped echoes of a field [ppm]."""
    return wrap(np.multiply.outer(2 * np.pi * HZ_PER_PPM_PER_T * B0 * np.asarray(te), field))


def ragged(shape, seed=0):
    """A random mask of two thirds of the voxels in blobs, that touches every face."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return noise > np.quantile(noise, 1 / 3)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.5)])
def test_nineteen_points_of_wrapped_phase_are_those_of_the_unwrapped_field(size):
    """Late echoes turn several times from voxel to voxel; only the first must not."""
    shape = (11, 12, 9)
    rate = smooth(shape, 3, 2.5) / TE[0]
    phase = wrap(np.multiply.outer(TE, rate))
    found = phase_laplacian(phase, None, np.ones(shape, bool), TE, size, points=19)
    core = np.zeros(shape, bool)
    core[1:-1, 1:-1, 1:-1] = True
    expected = -Poisson(core, size).apply(rate.astype(np.float32))
    np.testing.assert_allclose(found[core], expected[core], atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(2.0, 2.0, 2.0), (1.0, 1.3, 2.4)])
def test_equals_the_field_without_its_projection_on_harmonic_ones_in_float64(size):
    """The harmonic fields are the null space of the Laplacian as a dense matrix."""
    shape = (9, 8, 10)
    mask = ellipsoid(shape, size, np.array(shape) * size * 0.55)
    mask[3, 1:5, 2] = False
    kept, mask_1 = enclosed(mask), np.pad(mask, 1)
    poisson = Poisson(np.pad(kept, 1), size)
    columns = []
    for index in np.argwhere(mask_1):
        one = np.zeros(mask_1.shape, np.float32)
        one[tuple(index)] = 1
        columns.append(poisson.apply(one)[np.pad(kept, 1)])
    harmonic = linalg.null_space(np.array(columns, np.float64).T)
    field = 0.05 * smooth(shape, 4, 1.0)
    values = field[mask]
    expected = np.zeros(shape)
    expected[mask] = values - harmonic @ (harmonic.T @ values)
    found, known, solved = harperella(phase_of(field), mask, TE, B0, size, tolerance=1e-5)
    assert solved.converged
    assert found.dtype == np.float32
    np.testing.assert_array_equal(known, kept)
    assert relative_error(found, expected * kept) < 1e-3


@pytest.mark.parametrize(("shape", "size"), GRIDS)
def test_operators_are_adjoint_symmetric_and_positive(shape, size):
    mask = np.pad(ragged(shape), 1)
    kept = np.pad(enclosed(mask[1:-1, 1:-1, 1:-1]), 1)
    fields = SmallestField(mask, kept, size)
    poisson = Poisson(kept, size)
    rng = np.random.default_rng(2)
    one, other, field = ((where * rng.standard_normal(where.shape)).astype(np.float32) for where in (kept, kept, mask))

    def dot(a, b):
        return np.vdot(a.astype(np.float64), b.astype(np.float64))

    scale = float(np.linalg.norm(fields.field(one)) * np.linalg.norm(field))
    assert dot(fields.field(one), field) == pytest.approx(dot(one, poisson.apply(field)), abs=1e-6 * scale)
    for operator in (fields.normal, fields.precondition):
        image = operator(one).copy()
        scale = float(np.linalg.norm(image) * np.linalg.norm(other))
        assert dot(image, other) == pytest.approx(dot(one, operator(other)), abs=1e-6 * scale)
        assert dot(image, one) > 0


@pytest.mark.parametrize("size", [(2.0, 2.0, 2.0), (1.0, 1.3, 2.9)])
def test_harmonic_fields_and_whole_turns_leave_nothing(size):
    """The stencil is exact for harmonic polynomials up to the fifth degree; the last echo turns several times."""
    shape = (30, 28, 21)
    x, y, z = positions(shape, size)
    background = 1.0 + 0.02 * x - 0.02 * z + (2 * z**2 - x**2 - y**2 + 3 * x * y) / 1000 + (x**3 - 3 * x * z**2) / 1e5
    mask = ellipsoid(shape, size, np.array(shape) * size * 0.45)
    assert np.ptp(background[mask]) * HZ_PER_PPM_PER_T * B0 * TE[-1] > 3
    local, kept, _ = harperella(phase_of(background), mask, TE, B0, size)
    assert np.abs(local[kept]).max() < 1e-4 * np.ptp(background[mask])


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("size", [(2.0, 2.0, 2.0), (1.6, 2.0, 2.7)])
def test_field_of_an_outer_dipole_is_removed_and_that_of_an_inner_source_stays(size, b0_dir):
    shape = tuple(round(96 / v) for v in size)
    mask = ellipsoid(shape, size, (36, 38, 34))
    middle = (np.array(shape) - 1) / 2
    background, _ = dipole_field(shape, size, b0_dir, middle + np.array([10.0, 60.0, 8.0]) / size, 10, 9.4)
    inside, r = dipole_field(shape, size, b0_dir, middle, 4.0, 0.5)
    inside = np.where(r < 4.0, 0.0, inside)
    left, kept, _ = harperella(phase_of(background), mask, TE, B0, size)
    assert left[kept].std() < 0.005 * background[mask].std()
    both, _, _ = harperella(phase_of(inside + background), mask, TE, B0, size)
    near = r < 14.0
    assert np.polyfit(inside[near], both[near], 1)[0] == pytest.approx(1.0, abs=0.03)
    assert np.corrcoef(inside[near], both[near])[0, 1] > 0.98


@pytest.mark.parametrize(
    ("shape", "size"), [((40, 44, 36), (2, 2, 2)), ((80, 76, 66), (1, 1, 1)), ((72, 70, 20), (0.6, 0.6, 3))]
)
def test_a_noisy_head_converges_in_few_iterations(shape, size):
    _, field, mask = head(shape, size, noise=0.001)
    solved = harperella(phase_of(field), mask, TE, B0, size)[2]
    assert solved.converged
    assert solved.iterations <= 40


def test_iterations_that_ran_out_are_told():
    _, field, mask = head((20, 22, 18), (4, 4, 4))
    solved = harperella(phase_of(field), mask, TE, B0, (4, 4, 4), max_iterations=3)[2]
    assert (solved.iterations, solved.converged) == (3, False)


def test_disjoint_parts_a_single_echo_slab_edges_and_what_lies_outside():
    """Each part is solved as if alone; a mask at four faces loses one layer; voxels outside may hold anything."""
    shape, size = (26, 18, 16), (2.0, 2.0, 2.0)
    field = 0.05 * smooth(shape, 1, 1.0)
    phase = phase_of(field, [0.02])
    first, second = np.zeros(shape, bool), np.zeros(shape, bool)
    first[:12, 3:15, :] = True
    second[15:, 3:15, 2:14] = True
    both, kept, _ = harperella(phase, first | second, [0.02], B0, size, tolerance=1e-5)
    expected = np.zeros(shape, bool)
    expected[1:11, 4:14, 1:15] = True
    np.testing.assert_array_equal(kept & first, expected)
    for part in (first, second):
        alone = harperella(phase, part, [0.02], B0, size, tolerance=1e-5)[0]
        assert relative_error(both[part], alone[part]) < 1e-3
    dirty = np.where(first | second, phase, np.float32(np.nan))
    np.testing.assert_array_equal(harperella(dirty, first | second, [0.02], B0, size, tolerance=1e-5)[0], both)


def test_a_dark_echo_changes_nothing():
    _, field, mask = head((24, 26, 20), (3, 3, 3))
    phase = phase_of(field)
    magnitude = np.ones(phase.shape, np.float32)
    magnitude[:, 10:12, 12, 9] = 0
    bare = harperella(phase, mask, TE, B0, (3, 3, 3))[0]
    assert relative_error(harperella(phase, mask, TE, B0, (3, 3, 3), magnitude)[0], bare) < 1e-2


def test_faults_are_refused():
    phase, mask, size = np.zeros((2, 8, 8, 8), np.float32), np.ones((8, 8, 8), bool), (1.0, 1.0, 1.0)
    broken, thin = phase.copy(), np.zeros_like(mask)
    broken[1, 3, 3, 3] = np.nan
    thin[3:5] = True
    for arguments, options, message in [
        ((broken, mask, TE[:2], B0, size), {}, "phase is NaN"),
        ((phase, mask & False, TE[:2], B0, size), {}, "mask is empty"),
        ((phase, thin, TE[:2], B0, size), {}, "too thin"),
        ((phase, mask, TE, B0, size), {}, "equally many"),
        ((phase, mask, TE[:2], -1, size), {}, "b0"),
        ((phase, mask, TE[:2], B0, (1, 0, 1)), {}, "voxel_size"),
        ((phase, mask, TE[:2], B0, size), {"tolerance": 0.0}, "tolerance"),
    ]:
        with pytest.raises(ValueError, match=message):
            harperella(*arguments, **options)
