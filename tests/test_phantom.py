"""The simulated head: tissue by hand, shapes by geometry, fields by analysis, scans by the signal equation."""

import math

import numpy as np
import pytest
from scipy import ndimage

from qsm_dask import phantom
from qsm_dask.io.grid import b0_direction, voxel_size
from qsm_dask.kernels.dipole import forward_field
from qsm_dask.phantom.background import background_field
from qsm_dask.phantom.brain import DEEP_GREY
from qsm_dask.phantom.grid import CENTRE_MM, EXTENT_MM, voxel_positions
from qsm_dask.phantom.nuclei import NUCLEI, nucleus
from qsm_dask.phantom.randomness import smooth_field
from qsm_dask.phantom.shapes import Ellipsoid, Frame, Tube, mirrored
from qsm_dask.phantom.subject import rotation
from qsm_dask.phantom.tissue import BRAIN, chi_of_iron, deep_grey, iron

COARSE = (32, 32, 24)
NUMBER = {name: label for label, name in phantom.LABELS.items()}


@pytest.fixture(scope="module")
def head() -> phantom.Phantom:
    """A noiseless head at the default 2 mm."""
    return phantom.simulate(1, 0, snr=math.inf, te=(0.005, 0.015))


@pytest.fixture(scope="module")
def tilted() -> phantom.Phantom:
    """An oblique noiseless head at 4 mm."""
    return phantom.simulate(2, 0, shape=(48, 56, 40), snr=math.inf, te=(0.005,), oblique=True)


def plain_frame(low: tuple[float, float, float], high: tuple[float, float, float], size: float) -> Frame:
    """MNI coordinates without rotation, scale or deformation."""
    axes = [np.arange(a, b, size, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return Frame(x, y, z, (size, size, size), np.eye(3))


class TestTissue:
    @pytest.mark.parametrize(
        ("region", "content"), [("globus_pallidus", 203.41), ("putamen", 106.77), ("caudate", 78.35)]
    )
    def test_iron_at_thirty_years_is_hallgren_and_souranders(self, region: str, content: float) -> None:
        assert iron(region, 30.0) == pytest.approx(content, abs=0.005)

    def test_iron_at_birth_is_the_offset(self) -> None:
        assert iron("putamen", 0.0) == pytest.approx(4.6)

    def test_a_region_without_record_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"no iron on record for 'cortex'; known are globus_pallidus"):
            iron("cortex", 30.0)

    def test_susceptibility_follows_iron(self) -> None:
        assert chi_of_iron(100.0) == pytest.approx(0.0690 - 0.0287)

    def test_relaxation_adds_137_hz_per_ppm_at_3_tesla_and_grows_with_the_field(self) -> None:
        # White matter: R2 13.5 1/s, 17 ppb para- and 29 ppb diamagnetic.
        assert BRAIN["white_matter"].look(3.0).r2star == pytest.approx(13.5 + 137.0 * 0.046)
        assert BRAIN["white_matter"].look(7.0).r2star == pytest.approx(13.5 + 137.0 * 0.046 * 7.0 / 3.0)

    def test_more_iron_means_more_susceptibility_and_relaxation(self) -> None:
        usual, more = deep_grey("putamen", 60.0), deep_grey("putamen", 60.0, 0.1)
        assert more.chi - usual.chi == pytest.approx(0.690e-3 * 0.1 * iron("putamen", 60.0))
        assert more.look(3.0).r2star > usual.look(3.0).r2star

    @pytest.mark.parametrize(("region", "low", "high"), [("globus_pallidus", 36, 45), ("putamen", 24, 32)])
    def test_relaxation_of_an_adult_is_in_the_range_seen_at_3_tesla(self, region: str, low: float, high: float) -> None:
        assert low < deep_grey(region, 60.0).look(3.0).r2star < high


class TestShapes:
    def test_a_sphere_s_distance_is_exact(self) -> None:
        sphere = Ellipsoid((1.0, 2.0, 3.0), (10.0, 10.0, 10.0))
        x, y, z = (np.array([value], np.float32) for value in (1.0 + 8.0, 2.0 + 9.0, 3.0 + 12.0))
        assert sphere.distance(x, y, z)[0] == pytest.approx(17.0 - 10.0, rel=1e-6)

    def test_a_turned_ellipsoid_ends_where_its_axes_end(self) -> None:
        ellipsoid = Ellipsoid((0.0, 0.0, 0.0), (10.0, 5.0, 2.0), ((3.0, 4.0, 0.0), (0.0, 0.0, 1.0)))
        # The first axis is (0.6, 0.8, 0), the second z, the third their product (0.8, -0.6, 0).
        points = np.array([[6.0, 8.0, 0.0], [0.0, 0.0, 5.0], [1.6, -1.2, 0.0]], np.float32)
        assert ellipsoid.distance(*points.T) == pytest.approx(np.zeros(3), abs=1e-5)
        assert ellipsoid.bounds[1] == pytest.approx([math.hypot(6.0, 1.6), math.hypot(8.0, 1.2), 5.0])

    @pytest.mark.parametrize("size", [1.0, 2.0, 6.0])
    def test_partial_volume_keeps_the_volume_of_thin_structures(self, size: float) -> None:
        frame = plain_frame((-30, -30, -30), (30.1, 30.1, 30.1), size)
        ellipsoid = Ellipsoid((0.3, -0.4, 0.2), (9.0, 6.0, 2.5), ((0.5, 0.7, -0.3), (0.2, 0.1, 1.0)))
        tube = Tube(((-15.0, 3.0, 2.0, 1.5), (15.0, -4.0, 5.0, 1.5)))
        length = math.hypot(30.0, 7.0, 3.0)
        for shape, volume in (
            (ellipsoid, 4.0 / 3.0 * math.pi * 9.0 * 6.0 * 2.5),
            (tube, math.pi * 1.5**2 * length + 4.0 / 3.0 * math.pi * 1.5**3),
        ):
            window = frame.window(shape.bounds)
            assert window is not None
            filled = float(frame.occupancy(shape, window).sum()) * size**3
            assert filled == pytest.approx(volume, rel=0.1 if size < 6.0 else 0.2)

    def test_the_left_mirrors_the_right(self) -> None:
        frame = plain_frame((-40, -80, -45), (40.1, 40, 40), 2.0)
        for region in NUCLEI:
            right, left = (nucleus(region, side) for side in ("right", "left"))
            assert right.distance(frame.x, frame.y, frame.z)[::-1] == pytest.approx(
                left.distance(frame.x, frame.y, frame.z), abs=1e-4
            )
            assert mirrored(mirrored(right)) == right

    @pytest.mark.parametrize(
        ("region", "centre", "volume"),
        [
            ("caudate", (13.9, 10.2, 9.6), 4920),
            ("putamen", (26.1, 2.1, 0.1), 5050),
            ("globus_pallidus", (21.0, -3.9, -2.0), 2170),
            ("accumbens", (10.8, 8.4, -9.1), 335),
            ("substantia_nigra", (10.3, -18.3, -15.1), 437),
            ("red_nucleus", (5.5, -18.3, -10.1), 300),
            ("subthalamic_nucleus", (10.0, -11.9, -9.7), 120),
            ("pulvinar", (19.1, -29.3, 4.0), 750),
            ("thalamus", (10.7, -18.9, 6.3), 8050),
            ("hippocampus", (26.2, -22.7, -14.6), 5200),
            ("amygdala", (23.2, -4.2, -19.2), 2800),
            ("dentate", (14.7, -59.9, -34.3), 1965),
        ],
    )
    def test_nuclei_lie_where_atlases_have_them(
        self, region: str, centre: tuple[float, float, float], volume: float
    ) -> None:
        frame = plain_frame((-5, -80, -50), (45, 40, 40), 1.0)
        shape = nucleus(region, "right")
        inside = shape.distance(frame.x, frame.y, frame.z) < 0.0
        found = [float(axis[inside].mean()) for axis in (frame.x, frame.y, frame.z)]
        assert math.dist(found, centre) < 2.0
        assert np.count_nonzero(inside) == pytest.approx(volume, rel=0.3)

    def test_a_random_field_does_not_depend_on_the_grid(self) -> None:
        fine, coarse = voxel_positions((48, 56, 40)), [axis[::3] for axis in voxel_positions((48, 56, 40))]
        one = smooth_field(np.random.default_rng(5), fine, EXTENT_MM, 9.0)
        other = smooth_field(np.random.default_rng(5), coarse, EXTENT_MM, 9.0)
        assert one[::3, ::3, ::3] == pytest.approx(other, abs=1e-5)
        # Some 10,000 knots count: the mean has a standard error of about 0.03.
        assert one.mean() == pytest.approx(0.0, abs=0.1)
        assert one.std() == pytest.approx(1.0, abs=0.05)


class TestGeometry:
    def test_a_turn_about_x_tilts_b0_in_the_yz_plane(self) -> None:
        pose = rotation((32.5, 0.0, 0.0))
        sine, cosine = math.sin(math.radians(32.5)), math.cos(math.radians(32.5))
        assert pose == pytest.approx(np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]))
        affine = phantom.affine_of(COARSE, pose)
        # 192 / 32 = 6, 224 / 32 = 7 and 160 / 24 = 6.667 mm.
        assert affine[:3, 1] == pytest.approx([0.0, 7.0 * cosine, 7.0 * sine])
        assert voxel_size(affine) == pytest.approx([6.0, 7.0, 160.0 / 24.0])
        assert b0_direction(affine) == pytest.approx([0.0, sine, cosine])

    def test_turns_follow_one_another_as_x_y_z(self) -> None:
        turned = rotation((90.0, 90.0, 0.0)) @ np.array([0.0, 1.0, 0.0])
        assert turned == pytest.approx([1.0, 0.0, 0.0])  # y to z about x, then z to x about y

    def test_the_middle_of_the_array_is_the_middle_of_the_field_of_view(self) -> None:
        affine = phantom.affine_of(COARSE, rotation((20.0, 5.0, -3.0)))
        assert affine @ [15.5, 15.5, 11.5, 1.0] == pytest.approx([*CENTRE_MM, 1.0])

    def test_an_oblique_scan_s_direction_is_that_of_its_affine(self, tilted: phantom.Phantom) -> None:
        assert tilted.arrays["b0_dir"] == pytest.approx(b0_direction(tilted.arrays["affine"]))
        assert tilted.arrays["b0_dir"][2] < math.cos(math.radians(10.0))

    def test_an_axial_scan_has_b0_along_z(self, head: phantom.Phantom) -> None:
        assert head.arrays["b0_dir"].tolist() == [0.0, 0.0, 1.0]
        assert head.arrays["voxel_size"].tolist() == [2.0, 2.0, 2.0]


class TestFields:
    @pytest.mark.parametrize("b0_dir", [(0.0, 0.0, 1.0), (0.0, 0.5, math.sqrt(0.75))])
    def test_the_field_around_a_sphere_is_that_of_a_dipole(self, b0_dir: tuple[float, float, float]) -> None:
        frame = plain_frame((-32, -32, -32), (32.1, 32.1, 32.1), 2.0)
        radius = 12.0
        sphere = Ellipsoid((0.0, 0.0, 0.0), (radius, radius, radius))
        chi = frame.occupancy(sphere, (slice(None), slice(None), slice(None)))
        field = background_field(chi, frame.voxel_size, np.array(b0_dir))
        r = np.sqrt(frame.x**2 + frame.y**2 + frame.z**2)
        cosine = (frame.x * b0_dir[0] + frame.y * b0_dir[1] + frame.z * b0_dir[2]) / np.maximum(r, 1e-6)
        moment = float(chi.sum()) * 8.0 / (4.0 / 3.0 * math.pi)  # radius cubed, but for the soft edge
        assert moment == pytest.approx(radius**3, rel=0.03)
        exact = moment / np.maximum(r, 1.0) ** 3 / 3.0 * (3.0 * cosine**2 - 1.0)
        away = r > radius + 4.0
        assert field[away] == pytest.approx(exact[away], abs=0.003)

    def test_the_background_is_harmonic_inside_an_oblique_brain(self, tilted: phantom.Phantom) -> None:
        local, mask = tilted.truth["local_field"], tilted.truth["mask"]
        background = tilted.truth["total_field"] - local
        x, y, z = np.ogrid[-3:4, -3:4, -3:4]
        sphere = (x * x + y * y + z * z <= 9).astype(np.float64)
        sphere /= sphere.sum()
        deep = ndimage.binary_erosion(mask, iterations=4)
        spread = [float((f - ndimage.convolve(f, sphere))[deep].std()) for f in (background, local)]
        assert spread[0] < 0.1 * spread[1]

    def test_the_local_field_is_that_of_the_brain_alone(self, tilted: phantom.Phantom) -> None:
        chi, mask = tilted.truth["chi"], tilted.truth["mask"]
        assert not chi[~mask].any()
        expected = forward_field(chi, tilted.arrays["voxel_size"], tilted.arrays["b0_dir"])
        assert np.array_equal(tilted.truth["local_field"], expected)

    def test_the_total_field_is_about_twenty_times_the_local_one(self, head: phantom.Phantom) -> None:
        mask = head.truth["mask"]
        ratio = head.truth["total_field"][mask].std() / head.truth["local_field"][mask].std()
        assert 15.0 < ratio < 30.0

    def test_shimming_leaves_no_mean_and_no_slope_in_the_brain(self, head: phantom.Phantom) -> None:
        field, mask = head.truth["total_field"], head.truth["mask"]
        index = np.argwhere(mask) - np.argwhere(mask).mean(axis=0)
        slope = np.linalg.lstsq(index * 2.0, field[mask].astype(np.float64), rcond=None)[0]
        assert abs(field[mask].mean(dtype=np.float64)) < 0.005
        assert np.abs(slope).max() < 2e-4  # ppm per mm; unshimmed heads have some 0.01


class TestTruth:
    def test_the_middle_of_a_nucleus_has_the_susceptibility_of_its_iron(self, head: phantom.Phantom) -> None:
        subject, chi, labels = head.subject, head.truth["chi"], head.truth["dseg"]
        for region in ("globus_pallidus", "putamen", "thalamus"):
            content = iron(region, subject.age) * (1.0 + subject.iron_excess[region])
            core = ndimage.binary_erosion(labels == NUMBER[f"{region}_left"])
            assert float(np.median(chi[core])) == pytest.approx(0.690e-3 * content - 0.0287, abs=0.004)

    def test_every_deep_grey_region_is_labelled_at_two_millimetres(self, head: phantom.Phantom) -> None:
        counts = np.bincount(head.truth["dseg"].ravel(), minlength=1 + max(phantom.LABELS))
        assert all(counts[label] > 0 for label in DEEP_GREY)
        assert len(phantom.LABELS) == len(set(phantom.LABELS.values())) == 29

    def test_a_label_means_the_majority_of_the_voxel(self, head: phantom.Phantom) -> None:
        # Where pallidum fills less than half of a voxel, susceptibility cannot be near its own.
        labels, chi = head.truth["dseg"], head.truth["chi"]
        pallidum = chi[labels == NUMBER["globus_pallidus_right"]]
        content = iron("globus_pallidus", head.subject.age) * (1.0 + head.subject.iron_excess["globus_pallidus"])
        white = BRAIN["white_matter"].chi
        assert pallidum.min() > white + 0.5 * (chi_of_iron(content) - white) - 0.01

    def test_veins_are_para_and_the_calcification_diamagnetic(self, head: phantom.Phantom) -> None:
        chi, labels = head.truth["chi"], head.truth["dseg"]
        assert chi[labels == NUMBER["veins"]].mean() > 0.1
        assert chi[labels == NUMBER["calcification"]].mean() < -0.7

    def test_the_calcification_holds_about_a_fifth_of_the_energy(self, head: phantom.Phantom) -> None:
        mask, calcified = head.truth["mask"], head.truth["dseg"] == NUMBER["calcification"]
        square = (head.truth["chi"] - head.truth["chi"][mask].mean(dtype=np.float64)) ** 2
        assert square[calcified].sum() / square[mask].sum() == pytest.approx(0.2, abs=0.05)

    def test_a_head_without_calcification_is_else_the_same(self, head: phantom.Phantom) -> None:
        without = phantom.simulate(1, 0, snr=math.inf, te=(0.005, 0.015), calcified=False)
        changed = head.truth["chi"] != without.truth["chi"]
        assert changed[head.truth["dseg"] == NUMBER["calcification"]].all()
        # An ellipsoid of 4.0 x 3.6 x 3.6 mm, half a voxel wider for what it fills in part, and heads are smaller.
        assert np.count_nonzero(changed) * 8.0 < 4.0 / 3.0 * math.pi * 5.5**3
        assert np.array_equal(head.truth["mask"], without.truth["mask"])
        assert not (without.truth["dseg"] == NUMBER["calcification"]).any()

    def test_the_brain_has_a_brain_s_volume(self, head: phantom.Phantom) -> None:
        assert 1100.0 < np.count_nonzero(head.truth["mask"]) * 8.0 / 1000.0 < 1700.0  # ml

    def test_a_dark_skull_parts_brain_and_scalp(self, head: phantom.Phantom) -> None:
        magnitude, mask = head.arrays["magnitude"][0], head.truth["mask"]
        distance = ndimage.distance_transform_edt(~mask, sampling=2.0)
        upper = np.arange(mask.shape[2]) > mask.shape[2] // 2
        brain = magnitude[mask].mean()
        assert magnitude[(distance > 5.0) & (distance < 8.0) & upper].mean() < 0.2 * brain
        assert magnitude[(distance > 11.0) & (distance < 14.0) & upper].mean() > 0.25 * brain

    def test_structures_below_two_voxels_are_not_resolved(self) -> None:
        two, coarse = phantom.voxel_size((96, 112, 80)), phantom.voxel_size(COARSE)
        # The subthalamic nucleus is 3.2 mm thick, the substantia nigra 4.6, the pallidum 10.2, the thalamus 20.
        assert not phantom.resolved(NUMBER["subthalamic_nucleus_left"], two)
        assert phantom.resolved(NUMBER["substantia_nigra_left"], two)
        assert not phantom.resolved(NUMBER["globus_pallidus_left"], coarse)
        assert phantom.resolved(NUMBER["thalamus_left"], coarse)

    def test_a_coarse_head_is_the_same_head(self, head: phantom.Phantom) -> None:
        coarse = phantom.simulate(1, 0, shape=COARSE, te=(0.005,))
        assert coarse.truth["chi"].shape == COARSE
        volume = np.count_nonzero(coarse.truth["mask"]) * 6.0 * 7.0 * 160.0 / 24.0
        assert volume == pytest.approx(np.count_nonzero(head.truth["mask"]) * 8.0, rel=0.02)
        for array in (*coarse.arrays.values(), *coarse.truth.values()):
            assert np.isfinite(array).all()


class TestScan:
    @pytest.mark.parametrize("b0", [3.0, 7.0])
    def test_phase_follows_field_and_offset(self, b0: float) -> None:
        te = (0.004, 0.011)
        made = phantom.simulate(4, 1, shape=COARSE, snr=math.inf, b0=b0, te=te)
        field, offset = made.truth["total_field"].astype(np.float64), made.truth["phase_offset"].astype(np.float64)
        for echo, time in enumerate(te):
            expected = 2.0 * math.pi * 42.577 * b0 * field * time + offset
            error = np.angle(np.exp(1j * (made.arrays["phase"][echo] - expected)))
            signal = made.arrays["magnitude"][echo] > 0.0
            assert np.abs(error[signal]).max() < 2e-3
        assert np.abs(made.arrays["phase"]).max() <= math.pi + 1e-6

    def test_r2prime_is_what_the_sources_add_to_r2(self, head: phantom.Phantom) -> None:
        truth, mask = head.truth, head.truth["mask"]
        expected = 137.0 * (truth["chi_para"] - truth["chi_dia"])[mask]
        assert truth["r2prime"][mask] == pytest.approx(expected, abs=1e-3)
        assert not truth["r2prime"][~mask].any()

    def test_magnitude_decays_with_r2star(self, head: phantom.Phantom) -> None:
        mask = head.truth["mask"]
        first, second = (echo[mask].astype(np.float64) for echo in head.arrays["magnitude"])
        assert np.log(first / second) / 0.010 == pytest.approx(head.truth["r2star"][mask], rel=1e-3)

    def test_noise_is_complex_gaussian_of_the_stated_snr(self) -> None:
        noisy, clean = (phantom.simulate(1, 0, shape=(48, 56, 40), snr=snr, te=(0.005,)) for snr in (25.0, math.inf))
        images = [made.arrays["magnitude"][0] * np.exp(1j * made.arrays["phase"][0]) for made in (noisy, clean)]
        noise = images[0] - images[1]
        level = float(clean.arrays["magnitude"][0][clean.truth["mask"]].mean()) / 25.0
        assert noise.real.std() == pytest.approx(level, rel=0.01)
        assert noise.imag.std() == pytest.approx(level, rel=0.01)
        assert abs(noise.mean()) < 0.02 * level

    def test_integer_phase_round_trip(self) -> None:
        phase = np.linspace(-math.pi, math.pi, 20_001, dtype=np.float32)
        stored = phantom.phase_to_integers(phase)
        assert (stored.min(), stored.max(), stored.dtype) == (0, 4095, np.uint16)
        assert phantom.phase_to_integers(np.array([-math.pi, 0.0, math.pi], np.float32)).tolist() == [0, 2048, 0]
        error = np.angle(np.exp(1j * (phantom.phase_from_integers(stored) - phase)))
        assert np.abs(error).max() < math.pi / 4096 + 1e-5

    def test_the_same_seed_gives_the_same_bits(self) -> None:
        one, again = (phantom.simulate(3, 7, shape=COARSE) for _ in range(2))
        for name, array in one.arrays.items():
            assert np.array_equal(array, again.arrays[name])
        for name, array in one.truth.items():
            assert np.array_equal(array, again.truth[name])

    def test_subjects_and_seeds_differ(self) -> None:
        heads = [phantom.simulate(number, seed, shape=COARSE, te=(0.005,)) for number, seed in ((1, 0), (2, 0), (1, 1))]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not np.array_equal(heads[one].truth["mask"], heads[other].truth["mask"])
            assert heads[one].subject.age != heads[other].subject.age

    def test_an_age_given_changes_iron_and_nothing_of_the_form(self) -> None:
        young, old = (phantom.simulate(1, 0, shape=COARSE, te=(0.005,), age=age) for age in (20.0, 80.0))
        assert np.array_equal(young.truth["mask"], old.truth["mask"])
        putamen = young.truth["dseg"] == NUMBER["putamen_left"]
        assert old.truth["chi"][putamen].mean() - young.truth["chi"][putamen].mean() > 0.01

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"shape": (4, 32, 24)}, "too small for a head"),
            ({"te": (5.0, 10.0)}, "te is in seconds"),
            ({"te": ()}, "positive and ascending"),
            ({"te": (0.01, 0.005)}, "positive and ascending"),
            ({"b0": 0.0}, "must be positive"),
            ({"snr": -1.0}, "must be positive"),
            ({"age": 200.0}, "from 0 to 110"),
        ],
    )
    def test_what_cannot_be_scanned_is_refused(self, wrong: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            phantom.simulate(1, 0, **{"shape": COARSE, **wrong})  # type: ignore[arg-type]
