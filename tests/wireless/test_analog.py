"""Over-the-air aggregation: truncated channel inversion, its power, and its time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import exp1

from wireless.analog import Analog
from wireless.channel import Channel
from wireless.link import LinearLink
from wireless.mobility import Static
from wireless.radio import Fading, RadioParameters
from wireless.spectrum import OverTheAir
from wireless.streams import exponential

RAYLEIGH = np.zeros(1)


def channel(analog: Analog | None, kind: str = "per-round", devices: int = 400) -> Channel:
    x = np.linspace(40.0, 300.0, devices)
    radio = RadioParameters(fading=Fading(kind, rician=False), analog=analog)  # type: ignore[arg-type]
    return Channel(1, radio, Static(x, np.zeros(devices)), np.full(devices, 23.0))


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, np.nan])
def test_threshold_is_a_share_above_zero(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be in"):
        Analog(threshold)


def test_one_gain_is_inverted_for_a_transfer() -> None:
    with pytest.raises(ValueError, match="per-round or none"):
        RadioParameters(fading=Fading("ergodic"), analog=Analog())


@pytest.mark.parametrize("threshold", [0.01, 0.2, 1.0])
def test_inversion_takes_what_is_told_of_it_in_the_mean(threshold: float) -> None:
    """Simulated: the mean of 1/gamma with silence, and what the receiver decodes."""
    gamma = exponential(3, "gain", np.arange(2_000_000))
    power = np.where(gamma >= threshold, 1 / np.maximum(gamma, threshold), 0.0)
    told = Analog(threshold).inverse_snr(np.zeros(1), RAYLEIGH)[0]
    assert told == pytest.approx(exp1(threshold), rel=1e-12)
    assert power.mean() == pytest.approx(told, abs=6 * power.std() / np.sqrt(len(power)))


def test_an_snr_ten_times_better_has_a_tenth_of_the_noise() -> None:
    analog = Analog()
    worse, better = analog.inverse_snr(np.array([3.0, 13.0]), np.zeros(2))
    assert worse == pytest.approx(10 * better)
    assert analog.inverse_snr(np.array([3.0]), None)[0] == pytest.approx(10**-0.3)


def test_all_send_alike_often_wherever_they_are() -> None:
    analog = channel(Analog(0.2))
    assert analog.start.sends_probability == pytest.approx(np.exp(-0.2))
    assert len(np.unique(np.round(analog.start.snr_db, 3))) > 100
    times = np.linspace(0, 1e5, 40)
    silent = [analog.at(np.arange(400), time_s).outage.mean() for time_s in times]
    assert np.mean(silent) == pytest.approx(1 - np.exp(-0.2), abs=0.02)


def test_rate_is_that_of_the_numbers_whatever_the_snr() -> None:
    analog = channel(Analog(0.2, 16))
    share = analog.radio.uplink_modem.share
    assert analog.start.uplink.rate(1e6) == pytest.approx(np.full(400, 32e6 * share))


def test_a_digital_channel_knows_no_noise_of_sums() -> None:
    digital = channel(None)
    with pytest.raises(ValueError, match="digital"):
        digital.inverse_snr(digital.start)


@given(
    ready=st.lists(st.floats(0, 1e4), min_size=1, max_size=8),
    bits=st.floats(1e3, 1e9),
    band=st.floats(1e4, 1e8),
)
@settings(deadline=None, derandomize=True)
def test_all_begin_with_the_last_and_end_together(
    ready: list[float], bits: float, band: float
) -> None:
    """The airtime is that of one device, however many send."""
    rule, devices = OverTheAir(), len(ready)
    link = LinearLink(np.full(devices, 64.0))
    sent = rule.transfers(ready, np.full(devices, bits), link, band)
    assert (sent.begin_s == max(ready)).all()
    assert sent.finish_s == pytest.approx(max(ready) + bits / (64 * band))
    assert (sent.bandwidth_hz == band).all()
    assert sent.power_s == pytest.approx(sent.finish_s - sent.begin_s)
    end_s = rule.round_time(ready, np.full(devices, bits), link, band)
    assert end_s == pytest.approx(sent.end_s)


def test_a_batch_of_cohorts_waits_for_its_own_members() -> None:
    link = LinearLink(np.ones(3))
    present = np.array([[True, False, True], [True, True, False], [False] * 3])
    end_s = OverTheAir().round_time([1.0, 5.0, 3.0], [8.0] * 3, link, 2.0, present)
    assert end_s == pytest.approx([7.0, 9.0, 0.0])
