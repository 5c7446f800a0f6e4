"""Energy of computing and sending."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireless.energy import compute_energy_j, uplink_energy_j


def test_power_times_time():
    # 30 dBm is one watt, 23 dBm a fifth of it.
    assert uplink_energy_j([30, 23], 10).tolist() == pytest.approx([10, 1.9953], rel=1e-4)
    assert compute_energy_j([4, 10], [3, 2]).tolist() == [12, 20]


def test_amplifier_and_circuit():
    # 0.4 W radiated at 40 %, and half a watt for the rest: 1.5 W for 4 s.
    assert uplink_energy_j(10 * np.log10(400), 4, 0.4, 0.5) == pytest.approx(6)


@given(
    power_dbm=st.floats(-40, 33),
    seconds=st.floats(0, 1e4),
    efficiency=st.floats(0.05, 1),
    circuit_w=st.floats(0, 5),
)
def test_radiated_energy_is_the_least(power_dbm, seconds, efficiency, circuit_w):
    least = uplink_energy_j(power_dbm, seconds)
    spent = uplink_energy_j(power_dbm, seconds, efficiency, circuit_w)
    assert spent >= least * (1 - 1e-15)
    assert spent - least / efficiency == pytest.approx(circuit_w * seconds, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("efficiency", "circuit_w", "message"),
    [
        (0, 0, "amplifier_efficiency must be above 0 and at most 1, got 0"),
        ([0.5, 1.5], 0, "amplifier_efficiency must be above 0 and at most 1, got 1.5"),
        (np.nan, 0, "amplifier_efficiency"),
        (1, -1, "circuit_power_w must be finite and at least 0, got -1"),
        (1, np.inf, "circuit_power_w"),
    ],
)
def test_impossible_transmitters_are_refused(efficiency, circuit_w, message):
    with pytest.raises(ValueError, match=message):
        uplink_energy_j(23, 1, efficiency, circuit_w)
