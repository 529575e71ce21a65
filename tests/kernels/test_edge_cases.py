"""Every stage of the table on the edge cases of scans: a clear refusal or a finite map, never NaN.

Stages are found in the table, so that a new one is tested by being there.
"""

import functools

import numba
import numpy as np
import pytest
import scipy.fft

from qsm_dask.quantities import SPACE, quantity
from tests.kernels import every_stage
from tests.kernels.every_stage import EVEN_TE, STAGES, first_echo, head, of, part, run, turned

every = pytest.mark.parametrize("stage", STAGES)


@functools.cache
def usual(stage):
    """A head that the stage takes."""
    return head() if stage in every_stage.runs_on(head()) else head(EVEN_TE)


@functools.cache
def made(stage):
    return run(stage, usual(stage))


def masks(stage):
    return [name for name in STAGES[stage].inputs if quantity(name).dtype == "bool"]


def volumes(stage):
    """The inputs that hold real numbers in voxels."""
    return [n for n in STAGES[stage].inputs if quantity(n).dims[-3:] == SPACE and quantity(n).dtype == "float32"]


def assert_sound(stage, given, outputs):
    """Of the shape and kind that the table promises, finite, zero outside the mask."""
    inside = of(given, masks(stage)[0]) if masks(stage) else None
    for name, array in outputs.items():
        assert array.dtype == quantity(name).dtype
        if array.dtype.kind == "f" and quantity(name).dims[-1] == "z":
            assert np.isfinite(array).all()
        if quantity(name).dims[-3:] == SPACE:
            assert array.shape[-3:] == given["mask"].shape
            assert np.any(array)
            assert inside is None or not np.any(array[..., ~inside])


@every
def test_oblique_anisotropic_odd_heads_give_sound_maps(stage):
    assert_sound(stage, usual(stage), made(stage))


AXES = (1, 2, 0)
ACROSS = {"weighting.swi": {"highpass_voxels": (4.0, 0.0, 4.0)}}
"""Parameters that name axes, turned like these."""


@every
def test_axes_are_alike(stage):
    """A head in other axes, with its voxel size and B0 in them, gives the same map in these axes."""
    if stage == "weighting.mip":
        pytest.skip("slices lie across the third axis")
    parameters = ACROSS.get(stage, {})
    inside = turned(usual(stage), AXES)["mask"]
    for name, array in run(stage, turned(usual(stage), AXES), **parameters).items():
        expected = turned({name: made(stage)[name]}, AXES)[name]
        if name == "phase":  # of air it is noise, and its wraps are no difference
            difference = np.angle(np.exp(1j * (array - expected)))[..., inside]
            assert np.linalg.norm(difference) <= 1e-3 * np.linalg.norm(expected)
        elif array.dtype == bool:
            assert np.count_nonzero(array != expected) <= 1e-3 * np.count_nonzero(expected)
        else:
            np.testing.assert_array_equal(np.isnan(array), np.isnan(expected))
            difference = np.linalg.norm(np.nan_to_num(np.float64(array) - expected))
            assert difference <= 1e-3 * np.linalg.norm(np.nan_to_num(expected))


@every
def test_inputs_stay_as_they_are_and_threads_do_not_matter(stage):
    """The same bits of two threads, of inputs that are read-only, and with NaN where the mask is not."""
    given = every_stage.changed(usual(stage))
    if masks(stage):
        for name in volumes(stage):
            of(given, name)[..., ~given["mask"]] = np.nan
    kept = every_stage.changed(given)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        with scipy.fft.set_workers(2):
            outputs = run(stage, given)
    finally:
        numba.set_num_threads(threads)
    for name, array in outputs.items():
        assert array.tobytes() == made(stage)[name].tobytes()
    for name in STAGES[stage].inputs:
        assert np.asarray(of(given, name)).tobytes() == np.asarray(of(kept, name)).tobytes()
        assert not any(np.shares_memory(array, of(given, name)) for array in outputs.values())


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if "b0_dir" in stage.inputs])
def test_b0_counts_by_its_direction_and_points_either_way(stage):
    given, first = usual(stage), STAGES[stage].outputs[0]
    expected = made(stage)[first]

    def error(b0_dir):
        found = run(stage, given | {"b0_dir": np.array(b0_dir)})[first]
        return np.linalg.norm(np.float64(found) - expected) / np.linalg.norm(expected)

    assert error(-given["b0_dir"]) <= 1e-3
    assert error([0.0, 0.0, 1.0]) > 0.01


SLABS = {"x": slice(7, 19), "z": slice(6, 15)}


@every
@pytest.mark.parametrize("axis", SLABS)
def test_masks_may_touch_the_edge_of_the_image(stage, axis):
    """A slab whose first and last planes cut the head gives a map like that of the whole head."""
    slab = part(usual(stage), **{axis: SLABS[axis]})
    planes = np.moveaxis(slab["mask"], "xyz".index(axis), 0)
    assert planes[0].any()
    assert planes[-1].any()
    outputs = run(stage, slab)
    assert_sound(stage, slab, outputs)
    for name, array in outputs.items():
        if array.dtype == np.float32:
            whole = part({name: made(stage)[name]}, **{axis: SLABS[axis]})[name]
            both = (array != 0) & (whole != 0)
            assert np.count_nonzero(both) > 0.4 * np.count_nonzero(array)
            assert np.corrcoef(array[both], whole[both])[0, 1] > 0.6


def refuse(stage, given, *parts):
    """Expect a refusal that says these things, in this order."""
    with pytest.raises(ValueError, match=".*".join(parts)):
        run(stage, given)


@every
def test_what_is_optional_may_be_missing(stage):
    # Region statistics read any map, but need one.
    left = STAGES[stage].optional - ({"chi"} if stage == "roi.statistics" else set())
    given = usual(stage) | dict.fromkeys(left)
    assert_sound(stage, given, run(stage, given))


@every
@pytest.mark.parametrize("given", [first_echo(head()), head()], ids=["one echo", "uneven echoes"])
def test_one_echo_and_uneven_echoes_are_taken_or_the_table_says_why_not(stage, given):
    why = STAGES[stage].applies(every_stage.geometry(given))
    if why is not None:
        assert "echoes" in why
        refuse(stage, given, "echo")
    else:
        assert_sound(stage, given, run(stage, given))


LARGEST = {"mask.magnitude", "mask.phase_quality", "mask.field_quality"}
"""What keeps one component, and says so."""


@every
def test_disjoint_components_are_all_worked_on(stage):
    given = usual(stage)
    middle = int(np.median(np.nonzero(given["mask"])[0]))

    def cut(array):
        array[..., middle - 1 : middle + 2, :, :] = 0
        return array

    given = every_stage.changed(given, mask=cut, magnitude=cut, coil_magnitude=cut)
    outputs = run(stage, given)
    assert_sound(stage, given, outputs)
    for name, array in outputs.items():
        if quantity(name).dims[-3:] == SPACE and (array.dtype == bool or stage not in LARGEST):
            parts = np.any(array[..., : middle - 1, :, :]), np.any(array[..., middle + 2 :, :, :])
            assert parts == ((True, True) if stage not in LARGEST else (parts[0], not parts[0]))


@pytest.mark.parametrize(("stage", "mask"), [(stage, mask) for stage in STAGES for mask in masks(stage)])
def test_empty_masks_are_refused(stage, mask):
    refuse(stage, usual(stage) | {mask: np.zeros(every_stage.SHAPE, bool)}, "empty")


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage in STAGES for name in volumes(stage)])
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_voxels_that_are_not_finite_are_refused_by_name(stage, name, value):
    """Or are not read: the magnitude by what has weights from the noise map."""
    array = of(usual(stage), name).copy()
    array[(0,) * (array.ndim - 3) + tuple(n // 2 for n in every_stage.SHAPE)] = value
    given = usual(stage) | {name: array}
    if name == "magnitude" and "field_noise" in STAGES[stage].optional:
        given = given | {"field_noise": None}
    refuse(stage, given, name, "NaN")


HEADERS = [(s, n) for s, stage in STAGES.items() for n in stage.inputs if n in {"te", "b0", "b0_dir", "voxel_size"}]


@pytest.mark.parametrize(("stage", "name"), HEADERS)
def test_headers_that_are_not_finite_or_zero_are_refused_by_name(stage, name):
    for broken in (np.nan, 0.0):
        refuse(stage, usual(stage) | {name: of(usual(stage), name) * broken}, name)


READS_MAGNITUDE = [s for s, stage in STAGES.items() if {"magnitude", "coil_magnitude"} & set(stage.inputs)]


@pytest.mark.parametrize("stage", READS_MAGNITUDE)
def test_voxels_without_signal_leave_the_map_finite(stage):
    def hole(array):
        array[..., 10:13, 12:15, 8:11] = 0
        return array

    given = every_stage.changed(usual(stage), magnitude=hole, coil_magnitude=hole)
    assert_sound(stage, given, run(stage, given))


@pytest.mark.parametrize("stage", READS_MAGNITUDE)
def test_images_without_signal_are_refused_or_count_as_missing_or_give_an_empty_map(stage):
    optional = STAGES[stage].optional
    given = usual(stage) | dict.fromkeys(optional - {"magnitude"})
    blank = every_stage.changed(given, magnitude=np.zeros_like, coil_magnitude=np.zeros_like)
    try:
        outputs = run(stage, blank)
    except ValueError as error:
        assert "magnitude is" in str(error)  # noqa: PT017 -- a refusal is one of three right answers
        return
    missing = run(stage, given | {"magnitude": None}) if "magnitude" in optional else {}
    # The first is the map; beside it may stand a noise that is as large as phase allows.
    name, array = next(iter(outputs.items()))
    assert not np.any(array) or np.allclose(array, missing[name], rtol=1e-3, atol=1e-3 * np.abs(array).max())
