"""Single-step inversion: its operators as matrices, what it must not see, and heads it must recover."""

import numpy as np
import pytest

from qsm_dask.kernels.inversion import primal_dual
from qsm_dask.kernels.inversion.tgv import tgv
from qsm_dask.kernels.phaselaplacian import phase_laplacian
from tests.kernels.analytic import AXIAL, OBLIQUE, head, positions, relative_error
from tests.kernels.fields import HZ_PER_PPM_PER_T, smooth, wrap

B0 = 3.0
TE = np.array([0.004, 0.011, 0.02])
SHAPE, SIZE = (6, 6, 7), (0.8, 1.0, 1.25)


def phase_of(field, te=TE):
    """Wrapped echoes of a field [ppm]."""
    return wrap(np.multiply.outer(2 * np.pi * HZ_PER_PPM_PER_T * B0 * np.asarray(te), field))


def ahead(volume, axis):
    return np.roll(volume, -1, axis)


def back(volume, axis):
    return np.roll(volume, 1, axis)


class Plain:
    """The operator of the saddle point, written out in NumPy with masks, and as a matrix."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.inside = np.zeros(SHAPE, bool)
        self.inside[1:-1, 1:-1, 1:-1] = True
        self.inside[1, 1, 1:4] = False
        self.known = np.ones(SHAPE, bool)
        for x in (-1, 0, 1):
            for y in (-1, 0, 1):
                for z in (-1, 0, 1):
                    self.known &= np.roll(self.inside, (x, y, z), (0, 1, 2))
        self.data = rng.standard_normal(SHAPE).astype(np.float32) * self.known
        self.stencil = primal_dual.dipole_stencil(SIZE, tuple(OBLIQUE))
        self.weight = np.array([1, 1, 1, 2, 2, 2.0])[:, None, None, None]
        count = int(np.prod(SHAPE))
        columns = np.eye(5 * count).reshape(5 * count, 5, *SHAPE)
        self.matrix = np.stack([self.forward(x).ravel() for x in columns], axis=1)

    def forward(self, x):
        chi, psi, w = x[0], x[1], x[2:]
        box = sum(
            self.stencil[1 + a, 1 + b, 1 + c] * np.roll(chi, (-a, -b, -c), (0, 1, 2))
            for a in (-1, 0, 1)
            for b in (-1, 0, 1)
            for c in (-1, 0, 1)
        )
        laplacian = sum((ahead(psi, a) - 2 * psi + back(psi, a)) / SIZE[a] ** 2 for a in range(3))
        first = [((ahead(chi, a) - chi) / SIZE[a] - w[a]) * (self.inside & ahead(self.inside, a)) for a in range(3)]
        backed = self.inside & np.logical_and.reduce([back(self.inside, a) for a in range(3)])
        slope = [[(w[b] - back(w[b], a)) / SIZE[a] for b in range(3)] for a in range(3)]
        pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
        second = [(slope[a][b] + slope[b][a]) / 2 * backed for a, b in pairs]
        return np.stack([(box + laplacian) * self.known, *first, *second])

    def backward(self, y):
        y = y.copy()
        y[4:] *= self.weight
        return (self.matrix.T @ y.ravel()).reshape(5, *SHAPE)

    def problem(self):
        flags = primal_dual.flags_of(self.inside, self.known)
        return primal_dual.Problem(self.data, flags, self.stencil, 1 / np.array(SIZE), 0.02, 0.05)

    def run(self, step, problem, iterations):
        x = extrapolated = np.zeros((5, *SHAPE))
        y = np.zeros((10, *SHAPE))
        tau = np.array([step[0], step[1], *[step[2]] * 3])[:, None, None, None]
        sigma = np.array([step[3], *[step[4]] * 3, *[step[5]] * 6])[:, None, None, None]
        for _ in range(iterations):
            y = y + sigma * self.forward(extrapolated)
            y[0] -= step[3] * self.data * self.known
            y[1:4] /= np.maximum(1, np.sqrt((y[1:4] ** 2).sum(axis=0)) / problem.first)
            y[4:] /= np.maximum(1, np.sqrt((self.weight * y[4:] ** 2).sum(axis=0)) / problem.second)
            new = x - tau * self.backward(y)
            new[1] /= 1 + step[1]
            extrapolated, x = 2 * new - x, new
        return x, y


@pytest.fixture(scope="module")
def plain():
    return Plain()


def test_iterations_are_those_of_the_operator_and_its_transpose(plain):
    """In float64 with the transpose of the matrix: each stencil must be the adjoint of its partner, masks included."""
    problem = plain.problem()
    step = primal_dual.steps(problem, (1.0, 0.3, 0.2))
    state = primal_dual.State.zeros(SHAPE)
    for _ in range(40):
        primal_dual.iterate(state, problem, step)
    x, y = plain.run(step.astype(np.float64), problem, 40)
    for found, expected in zip(
        (state.chi, state.psi, state.w, state.v, state.p, state.q),
        (x[0], x[1], x[2:], y[0], y[1:4], y[4:]),
        strict=True,
    ):
        assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (300.0, 0.01, 5.0), (0.001, 4.0, 0.1)])
def test_steps_make_the_norm_of_the_operator_at_most_one(plain, sizes):
    step = primal_dual.steps(plain.problem(), sizes).astype(np.float64)
    count = int(np.prod(SHAPE))
    tau = np.repeat([step[0], step[1], *[step[2]] * 3], count)
    sigma = np.repeat([step[3], *[step[4]] * 3, *[step[5]] * 6], count) * np.repeat(
        [1, 1, 1, 1, 1, 1, 1, 2, 2, 2], count
    )
    scaled = np.sqrt(sigma)[:, None] * plain.matrix * np.sqrt(tau)
    used = scaled[np.abs(scaled).sum(axis=1) > 0]
    norm = np.sqrt(np.linalg.eigvalsh(used.T @ used).max())
    assert 0.3 < norm <= 1.0


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE, np.array([0.6, 0.8, 0.0])])
def test_the_stencil_is_exact_on_quadratic_functions(b0_dir):
    """(Laplacian / 3 - (b . grad)^2) of x_a x_b is 2 (delta_ab / 3 - b_a b_b); of lines and constants it is 0."""
    stencil = primal_dual.dipole_stencil(SIZE, tuple(b0_dir))
    grid = np.meshgrid(*[np.array([-1.0, 0, 1]) * v for v in SIZE], indexing="ij")
    assert abs(stencil.sum()) < 1e-12
    for a in range(3):
        assert abs((stencil * grid[a]).sum()) < 1e-12
        for b in range(3):
            wanted = 2 * ((a == b) / 3 - b0_dir[a] * b0_dir[b])
            assert (stencil * grid[a] * grid[b]).sum() == pytest.approx(wanted, abs=1e-12)


def seven_points(field, size):
    return sum((ahead(field, a) - 2 * field + back(field, a)) / size[a] ** 2 for a in range(3))


@pytest.mark.parametrize("weighted", [True, False])
def test_the_laplacian_is_that_of_the_unwrapped_field(weighted):
    """Late echoes turn several times from voxel to voxel; only the first must not."""
    shape, size = (11, 12, 9), (1.0, 2.0, 1.5)
    rate = smooth(shape, 3, 2.5) / TE[0]
    phase = wrap(np.multiply.outer(TE, rate))
    magnitude = np.random.default_rng(0).uniform(0.2, 1, phase.shape).astype(np.float32) if weighted else None
    found = phase_laplacian(phase, magnitude, np.ones(shape, bool), TE, size, points=7)
    core = (slice(1, -1),) * 3
    expected = seven_points(rate, size)[core]
    np.testing.assert_allclose(found[core], expected, atol=2e-5 * np.abs(expected).max())


def test_echoes_are_weighted_by_their_precision():
    """Noise of the slope of a least-squares line through the origin: sigma / sqrt(sum (magnitude te)^2)."""
    shape, rng = (30, 30, 30), np.random.default_rng(0)
    magnitude = np.broadcast_to(np.exp(-40 * TE)[:, None, None, None], (3, *shape)).astype(np.float32)
    phase = 0.01 * rng.standard_normal(magnitude.shape) / magnitude
    found = phase_laplacian(phase.astype(np.float32), magnitude, np.ones(shape, bool), TE, (1.0, 1.0, 1.0), points=7)
    slope = 0.01 / np.sqrt(((magnitude[:, 0, 0, 0] * TE) ** 2).sum())
    assert found[1:-1, 1:-1, 1:-1].std() == pytest.approx(slope * np.sqrt(6 + 36), rel=0.03)


def scan(shape=(30, 33, 25), size=(2.0, 2.0, 2.4), b0_dir=OBLIQUE, noise=0.0005):
    chi, field, mask = head(shape, size, b0_dir, noise=noise)
    x, y, z = positions(shape, size)
    background = 0.02 * x - 0.011 * z + (2 * z**2 - x**2 - y**2) / 900 + 0.0 * field
    return chi, field, mask, background


@pytest.mark.parametrize(
    ("shape", "size", "b0_dir"),
    [
        ((40, 44, 36), (2.0, 2.0, 2.0), AXIAL),
        ((33, 37, 21), (2.0, 2.0, 3.4), OBLIQUE),
        ((37, 40, 41), (2.0, 2.2, 1.8), np.array([0.0, 0.6, 0.8])),
    ],
    ids=["axial", "oblique-anisotropic-odd", "tilted"],
)
def test_a_head_is_recovered_from_wrapped_phase_under_a_background(shape, size, b0_dir):
    """The background is fifty times the local field and wraps."""
    chi, field, mask, background = scan(shape, size, b0_dir)
    phase = phase_of(field * mask + background)
    found, known, _ = tgv(phase, mask, TE, B0, size, b0_dir, max_iterations=400)
    truth = chi[known] - chi[known].mean()
    assert relative_error(found[known] - found[known].mean(), truth) < 0.35
    assert not found[~known].any()
    # A wrong direction must not pass.
    wrong = tgv(phase, mask, TE, B0, size, np.array([1.0, 0.0, 0.0]), max_iterations=100)[0]
    assert relative_error(wrong[known] - wrong[known].mean(), truth) > 0.7


def test_it_says_how_it_ended():
    _, field, mask, _ = scan()
    given = (phase_of(field), mask, TE, B0, (2.0, 2.0, 2.4), OBLIQUE)
    early = tgv(*given, tolerance=0.02)[2]
    assert early.converged
    assert early.residual <= 0.02
    assert early.iterations < 200
    late = tgv(*given, max_iterations=13)[2]
    assert (late.iterations, late.converged) == (13, False)


def test_harmonic_fields_and_whole_turns_are_never_seen():
    _, field, mask, background = scan()
    options = {"max_iterations": 60}
    bare = tgv(phase_of(field), mask, TE, B0, (2.0, 2.0, 2.4), OBLIQUE, **options)[0]
    covered = tgv(phase_of(field + background), mask, TE, B0, (2.0, 2.0, 2.4), OBLIQUE, **options)[0]
    turned = tgv(phase_of(field) + np.float32(4 * np.pi), mask, TE, B0, (2.0, 2.0, 2.4), OBLIQUE, **options)[0]
    assert relative_error(covered, bare) < 1e-2
    assert relative_error(turned, bare) < 1e-2


def test_single_echo_slab_edges_and_what_lies_outside_the_mask():
    """A mask that runs into four faces keeps all but one layer; voxels outside it may hold anything."""
    shape, size = (20, 18, 16), (2.0, 2.0, 2.0)
    _, field, _ = head(shape, size, AXIAL)
    mask = np.zeros(shape, bool)
    mask[:12, 3:15, :] = True
    phase = phase_of(field, [0.02])
    clean, known, _ = tgv(phase, mask, [0.02], B0, size, AXIAL, max_iterations=20)
    expected = np.zeros(shape, bool)
    expected[1:11, 4:14, 1:15] = True
    np.testing.assert_array_equal(known, expected)
    dirty = np.where(mask, phase, np.float32(np.nan))
    np.testing.assert_array_equal(tgv(dirty, mask, [0.02], B0, size, AXIAL, max_iterations=20)[0], clean)


def test_a_dark_echo_changes_nothing_and_dark_voxels_are_finite():
    _, field, mask, _ = scan()
    phase = phase_of(field)
    magnitude = np.ones(phase.shape, np.float32)
    magnitude[:, 14:16, 16, 12] = 0
    found = tgv(phase, mask, TE, B0, (2.0, 2.0, 2.4), OBLIQUE, magnitude, max_iterations=30)[0]
    bare = tgv(phase, mask, TE, B0, (2.0, 2.0, 2.4), OBLIQUE, max_iterations=30)[0]
    assert relative_error(found, bare) < 1e-2


def test_what_cannot_be_inverted_is_refused():
    _, field, mask, _ = scan()
    phase = phase_of(field)
    broken = phase.copy()
    broken[1, 15, 16, 12] = np.nan
    thin = np.zeros_like(mask)
    thin[10:12] = True
    size = (2.0, 2.0, 2.4)
    cases = [
        ((broken, mask, TE, B0, size, OBLIQUE), {}, "phase is NaN"),
        ((phase, mask & False, TE, B0, size, OBLIQUE), {}, "mask is empty"),
        ((phase, thin, TE, B0, size, OBLIQUE), {}, "too thin"),
        ((phase, mask, TE[:2], B0, size, OBLIQUE), {}, "equally many"),
        ((phase, mask, TE, -1, size, OBLIQUE), {}, "b0"),
        ((phase, mask, TE, B0, size, (0, 0, 2)), {}, "unit vector"),
        ((phase, mask, TE, B0, size, OBLIQUE), {"weight_ppm_mm": 0.0}, "weight_ppm_mm"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            tgv(*arguments, **options)
