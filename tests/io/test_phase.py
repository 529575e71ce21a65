import numpy as np
import pytest

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.io.phase import PhaseSign, find_scale, to_radians
from qsm_dask.scan import ScanKey

PI = np.pi
PLAIN = [(1.0, 0.0, True)]
KEY = ScanKey.parse("sub-01_ses-2_run-1")


def radians(stored, units=None, scaling=PLAIN, sign=1):
    values = np.asarray(stored, dtype=np.float32).reshape(1, -1, 1, 1).copy()
    scale = find_scale({"f": units}, float(values.min()), float(values.max()), scaling)
    to_radians(values, scale, sign)
    return values.ravel(), scale


# Stored values, and what they mean in radians by the vendor's definition of a turn.
KNOWN = {
    "radians": ([-3.1416, 0, 1.5, 3.1416], [-PI, 0, 1.5, PI]),
    "radians, 0 to 2 pi": ([0.0, 1.0, PI, 4.0, 6.2831], [0, 1, PI, 4 - 2 * PI, 0]),
    "12 bit": ([0, 1024, 2048, 3072, 4095], [-PI, -PI / 2, 0, PI / 2, 2047 * PI / 2048]),
    "signed 12 bit": ([-2048, -1024, 0, 2047], [-PI, -PI / 2, 0, 2047 * PI / 2048]),
    "milliradians": ([-3142, 0, 1000, 3142], [-PI, 0, 1, PI]),
    "rescaled 12 bit": ([-4096, -2048, 0, 4094], [-PI, -PI / 2, 0, 4094 * PI / 4096]),
    "rescaled 12 bit to 4095": ([-4096, 2048, 0, 4095], [-PI, PI / 2, 0, 4095 * PI / 4096]),
}


@pytest.mark.parametrize(("stored", "meant"), KNOWN.values(), ids=KNOWN.keys())
@pytest.mark.parametrize("units", [None, "arbitrary"])
def test_known_ranges(stored, meant, units):
    found, scale = radians(stored, units)
    difference = np.angle(np.exp(1j * (found - np.asarray(meant))))
    np.testing.assert_allclose(difference, 0, atol=5e-4)
    assert np.abs(found).max() <= np.float32(PI)
    assert (scale.warning is None) == (units == "arbitrary")


def test_inferred_units_are_a_warning():
    assert radians(KNOWN["12 bit"][0])[1].warning == (
        "phase has no Units; taken for 12 bit, 0..4095 (values run from 0 to 4095)"
    )


def test_radians_in_range_keep_their_bits():
    stored = np.array([-PI, -1.25, 0.1, PI], dtype=np.float32)
    np.testing.assert_array_equal(radians(stored, "rad")[0], stored)


def test_stated_radians_of_a_partial_range_are_not_stretched():
    stored = np.array([-0.4, 0.1, 0.3], dtype=np.float32)
    np.testing.assert_array_equal(radians(stored, "rad")[0], stored)


PARTIAL = {
    "short echo, integers": [-900, 0, 1100],
    "short echo, 12 bit": [1500, 2048, 2600],
    "nearly two thirds of a turn": [-2700, 2700],
    "tiny floats that mean a turn": [-0.00367, 0.00367],
    "less than half a turn of floats": [-0.5, 0.0, 0.7],
    "an unknown range": [-8192, 4096],
    "another unknown range": [-500, 496],
}


@pytest.mark.parametrize("stored", PARTIAL.values(), ids=PARTIAL.keys())
def test_values_that_fill_no_known_turn_are_refused_not_stretched(stored):
    with pytest.raises(InputError, match=r"f: phase units cannot be told: .* run from .* \"Units\": \"rad\""):
        radians(stored)


# The header of a converter maps 12 bits to a turn: then a part of it suffices.
HEADERS = {
    "Siemens": ((2.0, -4096.0, True), [-900, 1100], PI / 4096),
    "Philips": ((2 * PI / 4095, -PI, True), [-0.4, 0.7], 1.0),
    "milliradians": ((1.53455, -3142.0, True), [-500, 700], 1e-3),
}


@pytest.mark.parametrize(("scaling", "stored", "factor"), HEADERS.values(), ids=HEADERS.keys())
def test_the_scaling_of_the_header_tells_the_range_of_a_partial_turn(scaling, stored, factor):
    found, scale = radians(stored, None, [scaling, scaling])
    np.testing.assert_allclose(found, np.array(stored) * factor, rtol=1e-3)
    assert "scl_slope" in scale.reason


def test_scaling_that_differs_between_echoes_tells_nothing():
    with pytest.raises(InputError, match="cannot be told"):
        radians([-900, 1100], None, [(2.0, -4096.0, True), (1.0, -2048.0, True)])


@pytest.mark.parametrize(
    ("units", "low", "high", "message"),
    [
        ({"f": "rad"}, -4096, 4094, "Units says rad, but the values run from -4096 to 4094"),
        ({"f": "rad", "g": None}, -3, 3, r"Units differ within the series \(absent, rad\)"),
        ({"f": "degrees"}, -180, 180, 'Units of a phase image is \'degrees\'; BIDS allows "rad" or "arbitrary"'),
        ({"f": "rad"}, 0, 0, "the phase is 0 everywhere"),
    ],
)
def test_contradictions_are_refused(units, low, high, message):
    with pytest.raises(InputError, match=message):
        find_scale(units, low, high, PLAIN)


def test_one_scale_serves_all_echoes():
    """The first echo alone fills a third of the turn; its own range must not be stretched."""
    stored = np.zeros((2, 3, 1, 1), np.float32)
    stored[0, :, 0, 0] = (1365, 2048, 2731)
    stored[1, :, 0, 0] = (0, 2048, 4095)
    to_radians(stored, find_scale({"f": None, "g": None}, 0, 4095, PLAIN * 2), 1)
    np.testing.assert_allclose(stored[0].ravel(), np.array([-683, 0, 683]) * PI / 2048, rtol=1e-6)


def test_the_sign_turns_the_phase():
    np.testing.assert_allclose(radians([-3, 1, 3], "rad", sign=-1)[0], [3, -1, -3])


@pytest.mark.parametrize(
    ("option", "manufacturer", "sign", "reason"),
    [
        ("auto", "Siemens", 1, "auto: taken as delivered"),
        ("auto", None, 1, "auto: taken as delivered"),
        ("-1", "Siemens", -1, "given for all scans"),
        ("+1", "GE", 1, "given for all scans"),
        ("1", "GE", 1, "given for all scans"),
        ("GE=-1", "GE MEDICAL SYSTEMS", -1, "given for manufacturer GE MEDICAL SYSTEMS"),
        ("GE=-1", "Siemens", 1, "auto: taken as delivered"),
        ("-1,Siemens=+1", "SIEMENS", 1, "given for manufacturer SIEMENS"),
        ("sub-01=-1", "GE", -1, "given for sub-01"),
        ("sub-01=-1,sub-01_ses-2=+1", "GE", 1, "given for sub-01_ses-2"),
        ("sub-01_run-1=-1", "GE", -1, "given for sub-01_run-1"),
        ("sub-02=-1", "Siemens", 1, "auto: taken as delivered"),
        ("GE=-1, sub-01_ses-2_run-1=+1", "GE", 1, "given for sub-01_ses-2_run-1"),
        ("-1,sub-01=auto", "Siemens", 1, "auto: taken as delivered"),
    ],
)
def test_the_closest_sign_given_wins(option, manufacturer, sign, reason):
    assert PhaseSign.parse(option).of(KEY, manufacturer)[:2] == (sign, reason)


def test_ge_phase_is_not_turned_unasked_but_warned_about():
    assert "GE=-1" in PhaseSign.parse("auto").of(KEY, "GE MEDICAL SYSTEMS")[2]
    assert PhaseSign.parse("GE=+1").of(KEY, "GE MEDICAL SYSTEMS")[2] is None


@pytest.mark.parametrize("option", ["2", "GE", "GE=minus", "plus"])
def test_a_wrong_sign_is_refused(option):
    with pytest.raises(ConfigError, match="expected auto, \\+1 or -1"):
        PhaseSign.parse(option)
