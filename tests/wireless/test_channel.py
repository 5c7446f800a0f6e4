"""Links of a fleet: link budget, line of sight, shadowing, fading and interference."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import exp1

from wireless import fading
from wireless.channel import Channel
from wireless.coverage import coverage
from wireless.devices import preset
from wireless.efficiency import FittedNr, LinkAdaptation, Shannon
from wireless.fleet import draw_fleet
from wireless.layout import Layout
from wireless.link import ErgodicRayleighLink, PowerLimitedLink
from wireless.mobility import Linear, Static, Waypoints
from wireless.planning import planning_link
from wireless.propagation import ENVIRONMENTS
from wireless.propagation.penetration import building_loss_db
from wireless.radio import Fading, PowerControl, RadioParameters

PHONE = preset("phone-snapdragon-778g")
WIDE = {
    "bandwidth_hz": 20e6,
    "downlink_bandwidth_hz": 20e6,
    "bs_power_dbm": 46.0,
    "efficiency": Shannon(),
}
STILL, RAYLEIGH = Fading("none"), Fading(rician=False)
UMA = ENVIRONMENTS["uma"]()


def start(devices=2000, seed=1, move=Static, **radio):
    """Links at time zero of a fleet of phones."""
    parameters = RadioParameters(**{**WIDE, **radio})
    return draw_fleet(seed, devices, PHONE, 0, 0, parameters, move=move).channel.start


@pytest.fixture(scope="module")
def links():
    return start()


def over_seeds(devices=200, seeds=40, **radio):
    """Links of devices far from each other in many worlds, where places decorrelate."""
    return [start(devices, seed, cell_radius_m=2000.0, **radio) for seed in range(seeds)]


def test_line_of_sight_has_its_probability():
    worlds = over_seeds()
    seen = np.array([world.los.sum() for world in worlds])
    wanted = np.array([UMA.los_probability(w.distance_m, 25.0, 1.5).sum() for w in worlds])
    difference = seen - wanted
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(worlds))
    near = np.concatenate([w.los[w.distance_m < 100] for w in worlds])
    far = np.concatenate([w.los[w.distance_m > 500] for w in worlds])
    assert near.mean() > 5 * far.mean()


def test_shadowing_is_normal_with_the_deviation_of_its_state():
    worlds = over_seeds(devices=1, seeds=600)
    shadow = np.concatenate([w.shadowing_db for w in worlds])
    los = np.concatenate([w.los for w in worlds])
    assert stats.kstest(shadow[~los] / 6, "norm").pvalue > 0.001
    near = [start(1, seed, cell_radius_m=40.0) for seed in range(600)]
    shadow = np.concatenate([w.shadowing_db[w.los] for w in near])
    assert stats.kstest(shadow / 4, "norm").pvalue > 0.001


def test_a_walk_sees_shadowing_decorrelate_over_its_distance():
    """Autocorrelation exp(-d / 50 m) of a device out of sight, over many worlds."""
    steps = np.array([0.0, 10.0, 50.0, 150.0])
    rows = np.zeros(4, dtype=np.intp)
    walk = Waypoints(rows, steps, 1500 + steps, np.zeros(4))
    seen = []
    for seed in range(800):
        channel = Channel(seed, RadioParameters(cell_radius_m=2000.0), walk, np.full(1, 23.0))
        states = [channel.at(np.array([0]), float(time)) for time in steps]
        if not any(state.los[0] for state in states):
            seen.append([state.shadowing_db[0] for state in states])
    shadow = np.array(seen)
    correlation = np.corrcoef(shadow.T)[0]
    error = (1 - np.exp(-2 * steps / 50)) / np.sqrt(len(seen))
    assert (np.abs(correlation - np.exp(-steps / 50)) <= 4 * error + 1e-12).all()


def test_who_stays_keeps_its_link_and_who_walks_does_not():
    still = draw_fleet(1, 50, PHONE, 0, 0, RadioParameters(**WIDE)).channel
    later = still.at(np.arange(50), 3600.0)
    np.testing.assert_array_equal(later.snr_db, still.start.snr_db)
    walkers = draw_fleet(
        1, 50, PHONE, 0, 0, RadioParameters(**WIDE), move=lambda x, y: Linear(1, x, y, 500.0, 1.0)
    ).channel
    # A chord walked for no time at all still rounds a place by some picometres.
    np.testing.assert_allclose(walkers.start.snr_db, still.start.snr_db, atol=1e-9)
    assert (walkers.at(np.arange(50), 60.0).snr_db != still.start.snr_db).all()
    once = walkers.at(np.array([7, 3]), 60.0)
    np.testing.assert_array_equal(once.snr_db, walkers.at(np.arange(50), 60.0).snr_db[[7, 3]])


def test_changing_the_radio_moves_nobody_and_no_shadow(links):
    other = start(7, carrier_hz=28e9, fading=STILL, bandwidth_hz=1e6)
    np.testing.assert_array_equal(other.x_m, links.x_m[:7])
    np.testing.assert_array_equal(other.los, links.los[:7])
    np.testing.assert_array_equal(other.shadowing_db, links.shadowing_db[:7])
    np.testing.assert_array_equal(other.rician_k_db, links.rician_k_db[:7])


def test_link_budget_of_one_device_by_hand():
    links = start(fading=RAYLEIGH)
    n = int(np.flatnonzero(~links.los)[0])
    loss = UMA.path_loss_db(links.distance_m[n], False, 3.5e9, 25.0, 1.5) + links.shadowing_db[n]
    # 23 dBm + 8 dBi - loss against -173.98 dBm/Hz + 73.01 dBHz + 5 dB.
    snr_db = 23 + 8 - loss - (-173.98 + 73.0103 + 5)
    assert links.snr_db[n] == pytest.approx(snr_db, abs=1e-4)
    downlink_snr_db = 46 + 8 - loss - (-173.98 + 73.0103 + 9)
    assert links.downlink_snr_db[n] == pytest.approx(downlink_snr_db, abs=1e-4)
    # P g / (N0 gap) in Hz.
    a = 10 ** ((23 + 8 - loss + 173.98 - 5 - 1.73) / 10)
    assert isinstance(links.uplink, ErgodicRayleighLink)
    assert links.uplink.snr_bandwidth_hz[n] == pytest.approx(a, rel=1e-4)


def test_losses_and_gains_shift_both_directions(links):
    for change, shift in (
        ({"extra_loss_db": 20.0}, -20),
        ({"ut_antenna_gain_db": 3.0}, 3),
        ({"bs_antenna_gain_db": 18.0}, 10),
    ):
        other = start(**change)
        np.testing.assert_allclose(other.snr_db, links.snr_db + shift)
        np.testing.assert_allclose(other.downlink_snr_db, links.downlink_snr_db + shift)


def test_walls_stand_between_a_share_of_the_devices(links):
    indoors = start(indoor_share=0.8)
    walls = indoors.path_loss_db - links.path_loss_db
    device = np.flatnonzero(walls)
    assert abs(len(device) / 2000 - 0.8) < 4 * np.sqrt(0.16 / 2000)
    np.testing.assert_allclose(walls[device], building_loss_db(1, device, 3.5e9))


def test_static_channel_has_the_shannon_rate_with_a_gap():
    links = start(5, fading=STILL)
    assert isinstance(links.uplink, PowerLimitedLink)
    snr = 10 ** ((links.snr_db - 1.73) / 10)
    np.testing.assert_allclose(links.uplink.rate(20e6), 20e6 * np.log2(1 + snr))
    snr = 10 ** ((links.downlink_snr_db - 1.73) / 10)
    np.testing.assert_allclose(links.downlink.rate(20e6), 20e6 * np.log2(1 + snr))


def test_broadcast_is_ergodic_at_the_worst_receiver():
    fleet = draw_fleet(1, 500, PHONE, 0, 0, RadioParameters(**WIDE, fading=RAYLEIGH))
    snr = 10 ** ((fleet.channel.start.downlink_snr_db.min() - 1.73) / 10)
    rate = 20e6 * np.exp(1 / snr) * exp1(1 / snr) / np.log(2)
    assert fleet.broadcast_bps == pytest.approx(rate, rel=1e-12)


def test_line_of_sight_has_a_rician_factor_of_the_report_and_gains_by_it():
    links = start(20_000)
    assert np.isnan(links.rician_k_db[~links.los]).all()
    k_db = links.rician_k_db[links.los]
    # Rounding to whole decibels adds 1/12 to the variance.
    error = 3.5 / np.sqrt(len(k_db))
    assert abs(k_db.mean() - 9) < 4 * error
    assert k_db.std() == pytest.approx(np.sqrt(3.5**2 + 1 / 12), abs=4 * error)
    rayleigh, still = start(20_000, fading=RAYLEIGH), start(20_000, fading=STILL)
    rate, worst, best = (each.uplink.rate(1e6) for each in (links, rayleigh, still))
    np.testing.assert_allclose(rate[~links.los], worst[~links.los], rtol=1e-9)
    sure = links.los & (links.rician_k_db > 0)
    assert (worst[sure] < rate[sure]).all()
    assert (rate < best * (1 + 1e-9)).all()


@pytest.mark.parametrize("rician", [True, False])
def test_fading_per_round_is_that_of_the_moment(rician):
    radio = RadioParameters(**WIDE, fading=Fading("per-round", rician, outage_snr_db=0.0))
    channel = draw_fleet(1, 300, PHONE, 0, 0, radio).channel
    device = np.arange(300)
    state = channel.at(device, 777.0)
    k = 10 ** (state.rician_k_db / 10)
    power = fading.power(
        1, device, 777.0, fading.doppler_hz(3 / 3.6, 3.5e9), np.where(np.isnan(k), 0, k)
    )
    snr = 10 ** (state.snr_db / 10) * power
    np.testing.assert_allclose(
        state.uplink.rate(20e6), 20e6 * np.log2(1 + snr / 10**0.173), rtol=1e-12
    )
    np.testing.assert_array_equal(state.outage, snr < 1)
    np.testing.assert_array_equal(channel.at(device[:9], 777.0).outage, state.outage[:9])
    assert (channel.at(device, 778.0).uplink.rate(20e6) != state.uplink.rate(20e6)).all()


def test_planning_link_has_the_mean_time_per_bit_outside_outage():
    """Against the mean over many rounds, within five standard errors; so has the outage."""
    radio = RadioParameters(**WIDE, fading=Fading("per-round", outage_snr_db=5.0))
    channel = draw_fleet(3, 40, PHONE, 0, 0, radio).channel
    rounds = [channel.at(np.arange(40), 10.0 * t) for t in range(1, 4001)]
    outage = np.array([state.outage for state in rounds])
    wanted = 1 - channel.start.sends_probability
    error = np.sqrt(wanted * (1 - wanted) / len(rounds))
    assert (np.abs(outage.mean(axis=0) - wanted) <= 5 * error + 1e-3).all()
    bit_s = np.array([1 / state.uplink.rate(20e6) for state in rounds])
    planned = 1 / planning_link(channel).rate(20e6)
    for n in np.flatnonzero(wanted < 0.9):
        sent = bit_s[~outage[:, n], n]
        assert abs(sent.mean() - planned[n]) < 5 * sent.std(ddof=1) / np.sqrt(len(sent))


def test_without_fading_per_round_plans_use_the_links_themselves():
    channel = draw_fleet(1, 9, PHONE, 0, 0, RadioParameters(**WIDE)).channel
    assert planning_link(channel) is channel.start.uplink
    assert (channel.start.sends_probability == 1).all()


def test_power_control_saves_power_near_the_mast_and_nothing_at_the_edge():
    control = PowerControl(p0_dbm=-90.0, alpha=0.8)
    links, full = start(power_control=control), start()
    blocks = 10 * np.log10(20e6 / 180e3)
    coupling = links.path_loss_db + links.shadowing_db - 8
    wanted = np.minimum(23.0, -90 + 0.8 * coupling + blocks)
    np.testing.assert_allclose(links.tx_power_dbm, wanted)
    assert 0 < (wanted < 23).mean() < 1
    np.testing.assert_allclose(full.snr_db - links.snr_db, 23 - wanted, atol=1e-9)
    rate, most = links.uplink.rate(20e6), full.uplink.rate(20e6)
    np.testing.assert_allclose(rate[wanted == 23], most[wanted == 23])
    assert (rate[wanted < 23] < most[wanted < 23]).all()
    share = links.uplink.power_share(np.full(2000, 20e6))
    np.testing.assert_allclose(10 * np.log10(share), wanted - 23, atol=1e-9)


def test_time_division_duplex_divides_the_time():
    half, whole = start(9, uplink_share=0.25), start(9)
    np.testing.assert_allclose(half.uplink.rate(1e6), 0.25 * whole.uplink.rate(1e6))
    np.testing.assert_allclose(half.downlink.rate(1e6), 0.75 * whole.downlink.rate(1e6))


@pytest.mark.parametrize("efficiency", [Shannon(), FittedNr(), LinkAdaptation()])
@pytest.mark.parametrize("kind", [STILL, RAYLEIGH, Fading()])
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_modem_and_fading_gives_finite_links(name, kind, efficiency):
    radio = RadioParameters(
        environment=ENVIRONMENTS[name](),
        cell_radius_m=100.0,
        carrier_hz=2e9 if name == "rma" else 3.5e9,
        efficiency=efficiency,
        fading=kind,
    )
    links = draw_fleet(1, 60, PHONE, 0, 0, radio).channel.start
    rate = links.uplink.rate(1e6)
    assert np.isfinite(rate).all()
    assert (rate > 0).all()
    back = links.uplink.rate(links.uplink.bandwidth(rate / 2))
    np.testing.assert_allclose(back, rate / 2, rtol=1e-9)


def test_interference_lowers_every_link_and_more_of_it_more():
    layout = Layout(rings=1, inter_site_m=500.0)
    none, some, much = (start(700, layout=layout, load=load) for load in (0.0, 0.3, 1.0))
    assert set(none.cell) == set(range(7))
    assert (some.snr_db < none.snr_db).all()
    assert (much.snr_db < some.snr_db).all()
    assert (much.downlink_snr_db < some.downlink_snr_db).all()
    # The own signal is untouched: the noise rise is that of the cell's base station.
    rise = none.snr_db - much.snr_db
    for cell in range(7):
        np.testing.assert_allclose(rise[none.cell == cell], rise[none.cell == cell][0], rtol=1e-9)


def test_interference_does_not_depend_on_the_fleet():
    layout = Layout(rings=1, inter_site_m=500.0)
    few, many = (start(count, layout=layout) for count in (5, 700))
    np.testing.assert_array_equal(few.snr_db, many.snr_db[:5])
    np.testing.assert_array_equal(few.downlink_snr_db, many.downlink_snr_db[:5])


def test_interference_of_power_controlled_devices_does_not_depend_on_their_number():
    """Ten that share the band send as much, together, as one that has all of it."""
    layout, control = Layout(rings=1, inter_site_m=500.0), PowerControl(p0_dbm=-110.0)
    one, ten = (start(700, layout=layout, power_control=control, senders=k) for k in (1.0, 10.0))
    assert (one.tx_power_dbm < 23).all()
    np.testing.assert_allclose(ten.snr_db, one.snr_db, atol=1e-9)


def test_control_signals_take_their_share_from_nr_modems_alone():
    for efficiency in (FittedNr(), LinkAdaptation()):
        radio = RadioParameters(efficiency=efficiency, uplink_share=0.5)
        assert radio.uplink_modem.share == pytest.approx(0.5 * (1 - 0.08))
        assert radio.downlink_modem.share == pytest.approx(0.5 * (1 - 0.14))
        high = RadioParameters(efficiency=efficiency, carrier_hz=28e9)
        assert high.uplink_modem.share == pytest.approx(1 - 0.10)
    assert RadioParameters(efficiency=Shannon()).uplink_modem.share == 1.0


def test_free_space_does_not_fade():
    still, fading_set = (
        start(50, environment=ENVIRONMENTS["free-space"](), fading=kind)
        for kind in (STILL, Fading("per-round"))
    )
    np.testing.assert_array_equal(fading_set.uplink.rate(1e6), still.uplink.rate(1e6))


def test_nobody_indoors_has_a_line_of_sight_ray():
    assert np.isnan(start(indoor_share=1.0).rician_k_db).all()


def test_devices_of_a_layout_join_the_strongest_site():
    links = start(2000, layout=Layout(rings=1, inter_site_m=500.0), load=0.0)
    nearest = Layout(1, 500.0).distance_m(links.x_m, links.y_m).argmin(axis=1)
    # Shadowing and sight make some join a farther one.
    assert 0.5 < (links.cell == nearest).mean() < 1


def test_coverage_falls_with_distance_and_mixes_the_states():
    radio = RadioParameters(fading=STILL, efficiency=Shannon())
    seen = coverage(radio, 23.0, np.geomspace(35, 500, 50))
    assert (np.diff(seen.los_bps) < 0).all()
    assert (np.diff(seen.mean_bps) < 0).all()
    assert (seen.nlos_bps < seen.los_bps).all()
    loss = UMA.path_loss_db(seen.distance_m, True, 3.5e9, 25.0, 1.5)
    snr = 10 ** ((23 + 8 - loss + 173.98 - 60 - 5 - 1.73) / 10)
    np.testing.assert_allclose(seen.los_bps, 1e6 * np.log2(1 + snr), rtol=1e-9)


def test_mean_coverage_is_the_mean_over_drawn_devices():
    """At one distance, over many worlds, within four standard errors."""
    radio = RadioParameters(fading=RAYLEIGH, cell_radius_m=201.0, min_distance_m=200.0)
    rates = np.array(
        [
            draw_fleet(seed, 1, PHONE, 0, 0, radio).channel.start.uplink.rate(1e6)[0]
            for seed in range(1500)
        ]
    )
    wanted = coverage(radio, 23.0, np.array([200.5])).mean_bps[0]
    assert abs(rates.mean() - wanted) < 4 * rates.std(ddof=1) / np.sqrt(len(rates))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bandwidth_hz", 0),
        ("downlink_bandwidth_hz", np.inf),
        ("carrier_hz", 1e8),
        ("cell_radius_m", 6000),
        ("min_distance_m", 5),
        ("min_distance_m", 500),
        ("bs_height_m", 0),
        ("ut_height_m", 23),
        ("bs_power_dbm", np.nan),
        ("bs_noise_figure_db", -1),
        ("extra_loss_db", -1),
        ("indoor_share", 1.5),
        ("uplink_share", 0),
        ("block_hz", 2e6),
        ("building", "tent"),
        ("load", 2),
        ("senders", -1),
    ],
)
def test_radio_parameters_are_validated(name, value):
    with pytest.raises(ValueError, match=name.split("_m")[0]):
        RadioParameters(**{name: value})


def test_fading_and_power_control_are_validated():
    with pytest.raises(ValueError, match="kind"):
        Fading("rayleigh")
    with pytest.raises(ValueError, match="outage_snr_db"):
        Fading(outage_snr_db=np.nan)
    with pytest.raises(ValueError, match="speed_m_s"):
        Fading(speed_m_s=0)
    with pytest.raises(ValueError, match="alpha"):
        PowerControl(alpha=1.1)
    with pytest.raises(ValueError, match="indoor_share"):
        RadioParameters(
            environment=ENVIRONMENTS["inh-open"](), cell_radius_m=50.0, indoor_share=0.5
        )
