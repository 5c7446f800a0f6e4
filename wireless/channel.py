"""The links of devices at a moment: place, path loss, shadowing, fading, power and noise."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from wireless import fading, streams
from wireless.fields import Field
from wireless.interference import (
    downlink_interference_w_hz,
    serving,
    uplink_interference_w_hz,
)
from wireless.layout import Layout
from wireless.link import Link
from wireless.mobility import Mobility, Static
from wireless.power_control import power_dbm
from wireless.propagation.penetration import building_loss_db
from wireless.radio import DEEPEST_FADE, RadioParameters
from wireless.rates import faded_link, uplink
from wireless.traces import whole_periods

FloatArray = NDArray[np.float64]

#: Range of Rician factors; beyond it a channel is next to Rayleigh's, or to one that does not fade.
_K_RANGE_DB = (-20.0, 30.0)

#: Least probability of sending; a device that would send more rarely counts as in outage.
LEAST_PROBABILITY = 1e-3

#: Senders of the other cells: how many their mean is taken over, the first of their numbers, which
#: no device has, and their power, that of class 3 of TS 38.101-1.
_SENDERS_PER_CELL = 200
_FIRST_SENDER = 2**40
_SENDER_DBM = 23.0


@dataclass(frozen=True, slots=True, eq=False)
class LinkState:
    """The links of M devices at one moment.

    Parameters
    ----------
    x_m, y_m : ndarray, shape (M,)
        Places in metres.
    distance_m : ndarray, shape (M,)
        Horizontal distances to the serving base station in metres.
    cell : ndarray of int, shape (M,)
        Serving cell; zero if there is one only.
    los : ndarray of bool, shape (M,)
        Whether the device is in line of sight.
    path_loss_db : ndarray, shape (M,)
        Mean path losses in dB, walls included, without shadowing.
    shadowing_db : ndarray, shape (M,)
        Shadowing in dB, added to the path loss.
    rician_k_db : ndarray, shape (M,)
        Rician factors in dB; NaN where fading is Rayleigh.
    tx_power_dbm : ndarray, shape (M,)
        Transmit powers in dBm over the whole band, which power control may have lowered.
    snr_db : ndarray, shape (M,)
        Mean uplink SNR (with interference, SINR) over the whole band, before any SNR gap.
    downlink_snr_db : ndarray, shape (M,)
        The same for the downlink over its whole band.
    uplink, downlink : Link
        Rates of the M devices: means over fading, or with the fading of the moment.
    sends_probability : ndarray, shape (M,)
        Probability that fading lets the device send, at this place.
    outage : ndarray of bool, shape (M,)
        Whether the fading of the moment keeps it from sending; so does a probability below
        `LEAST_PROBABILITY`, whose inverse no aggregation weight could bear.
    """

    x_m: FloatArray
    y_m: FloatArray
    distance_m: FloatArray
    cell: NDArray[np.int64]
    los: NDArray[np.bool_]
    path_loss_db: FloatArray
    shadowing_db: FloatArray
    rician_k_db: FloatArray
    tx_power_dbm: FloatArray
    snr_db: FloatArray
    downlink_snr_db: FloatArray
    uplink: Link
    downlink: Link
    sends_probability: FloatArray
    outage: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of devices M."""
        return len(self.distance_m)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number or by mask."""
        chosen = {}
        for name in self.__slots__:
            column = getattr(self, name)
            links = name in ("uplink", "downlink")
            chosen[name] = column.take(index) if links else column[index]
        return type(self)(**chosen)


class _Places(NamedTuple):
    """Large-scale links of M devices to S sites: the serving one, and the gains to all."""

    x_m: FloatArray
    y_m: FloatArray
    distance_m: FloatArray
    cell: NDArray[np.int64]
    los: NDArray[np.bool_]
    path_loss_db: FloatArray
    shadowing_db: FloatArray
    gain: FloatArray

    @property
    def own_gain(self) -> FloatArray:
        """Gains to the serving sites, (M,)."""
        return np.asarray(self.gain[np.arange(len(self.cell)), self.cell])


class Channel:
    """The links of N devices at any time: a pure function of device and time.

    Line of sight and shadowing belong to the place, so a device that moves sees them change with
    the distances over which they decorrelate, and one that stays keeps them.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    radio : RadioParameters
        Cells and link budget.
    mobility : Mobility
        Where the N devices are.
    max_power_dbm : ndarray, shape (N,)
        Largest transmit powers in dBm.
    """

    def __init__(
        self, seed: int, radio: RadioParameters, mobility: Mobility, max_power_dbm: FloatArray
    ) -> None:
        self._seed, self.radio, self._mobility = seed, radio, mobility
        self.max_power_dbm = max_power_dbm
        environment = radio.environment
        in_sight, out_of_sight = environment.shadowing_decorrelation_m(np.array([True, False]))
        sites = range(1 if radio.layout is None else len(radio.layout))
        self._sight = [
            Field(seed, "radio.los", environment.los_decorrelation_m, site) for site in sites
        ]
        self._shadowing = {
            True: [Field(seed, "radio.shadowing.los", in_sight, site) for site in sites],
            False: [Field(seed, "radio.shadowing.nlos", out_of_sight, site) for site in sites],
        }
        noise_dbm_hz = radio.noise_density_dbm_hz
        self._noise_w_hz = _watts(noise_dbm_hz + radio.bs_noise_figure_db) * np.ones(len(sites))
        self._device_noise_w_hz = float(_watts(noise_dbm_hz + radio.ut_noise_figure_db))
        if radio.layout is not None:
            self._noise_w_hz = self._noise_w_hz + self._uplink_interference_w_hz(radio.layout)
        device = np.arange(len(max_power_dbm))
        self._walls_db = self._draw_walls_db(device)
        self.start = self._links(device, self._places(device, 0.0), 0.0)

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.max_power_dbm)

    def inverse_snr(self, state: LinkState) -> FloatArray:
        """Return what the noise of an analog uplink goes by: see `Analog.inverse_snr`.

        Parameters
        ----------
        state : LinkState
            Of M devices.

        Returns
        -------
        ndarray, shape (M,)

        Raises
        ------
        ValueError
            If the uplink is digital.
        """
        if self.radio.analog is None:
            raise ValueError("the uplink is digital")
        k_factor = _ratio(state.rician_k_db) if self.radio.fades else None
        return self.radio.analog.inverse_snr(state.snr_db, k_factor)

    @property
    def changes(self) -> bool:
        """Whether links change in the course of time."""
        fades = self.radio.fading.kind in ("per-round", "block")
        return fades or not isinstance(self._mobility, Static)

    def at(self, device: NDArray[np.int64], time_s: float) -> LinkState:
        """Return the links of some devices at one moment.

        Parameters
        ----------
        device : ndarray of int, shape (M,)
            Numbers of the devices.
        time_s : float
            Time in seconds, >= 0.

        Returns
        -------
        LinkState
            Of the M devices.
        """
        if not self.changes:
            return self.start.take(device)
        return self._links(device, self._places(device, time_s), time_s)

    def _draw_walls_db(self, device: NDArray[np.int64]) -> FloatArray:
        """Losses into buildings; zero outdoors."""
        radio = self.radio
        if radio.indoor_share == 0:
            return np.zeros(len(device))
        indoors = streams.uniform(self._seed, "radio.indoor", device) < radio.indoor_share
        loss = building_loss_db(
            self._seed, device, radio.carrier_hz, radio.building, radio.environment.name
        )
        return np.where(indoors, loss, 0.0)

    def _uplink_interference_w_hz(self, layout: Layout) -> FloatArray:
        """Density at each site of what the other cells' senders send, (S,).

        The senders are placed like devices but are others, so that a device's link does not depend
        on how many devices the fleet has.
        """
        radio = self.radio
        sender = _FIRST_SENDER + np.arange(_SENDERS_PER_CELL * len(layout))
        x, y = layout.draw(self._seed, sender, radio.min_distance_m)
        places = self._seen(x, y, self._draw_walls_db(sender))
        # Several senders of a cell have a part of the band each, and the power for it.
        width_hz = radio.bandwidth_hz / max(radio.senders, 1.0)
        power_w = _watts(self._power_dbm(np.full(len(sender), _SENDER_DBM), places, width_hz))
        return uplink_interference_w_hz(
            places.gain, places.cell, power_w, radio.bandwidth_hz, radio.load, radio.senders
        )

    def _places(self, device: NDArray[np.int64], time_s: float) -> _Places:
        """Where devices are, whom they are served by, and over which loss."""
        return self._seen(*self._mobility.position_m(device, time_s), self._walls_db[device])

    def _seen(self, x: FloatArray, y: FloatArray, walls_db: FloatArray) -> _Places:
        """What places see of the sites."""
        radio, environment = self.radio, self.radio.environment
        if radio.layout is None:
            distances = np.hypot(x, y)[:, None]
            shift_x, shift_y = x[:, None], y[:, None]
        else:
            shift_x, shift_y = radio.layout.displacement(x, y)
            distances = np.hypot(shift_x, shift_y)
        assert radio.bs_height_m is not None
        assert radio.ut_height_m is not None
        heights = radio.bs_height_m, radio.ut_height_m
        loss, shadow = np.empty_like(distances), np.empty_like(distances)
        los = np.empty(distances.shape, dtype=np.bool_)
        for site in range(distances.shape[1]):
            # The models hold from a smallest distance on, which paths of devices may cross.
            distance = np.maximum(distances[:, site], radio.min_distance_m)
            place = shift_x[:, site], shift_y[:, site]
            sees = environment.los_probability(distance, *heights)
            los[:, site] = ndtr(self._sight[site].at(*place)) < sees
            seen = los[:, site]
            loss[:, site] = walls_db + environment.path_loss_db(
                distance, seen, radio.carrier_hz, *heights
            )
            deviation = environment.shadowing_std_db(distance, seen, radio.carrier_hz, *heights)
            for state, fields_of_state in self._shadowing.items():
                there = np.flatnonzero(seen == state)
                shadow[there, site] = fields_of_state[site].at(place[0][there], place[1][there])
            shadow[:, site] *= deviation
        gain_db = radio.antennas_db - loss - shadow
        cell = serving(gain_db)
        own = np.arange(len(x)), cell
        return _Places(
            x,
            y,
            distances[own],
            cell,
            los[own],
            loss[own],
            shadow[own],
            np.asarray(10 ** (gain_db / 10)),
        )

    def _power_dbm(self, most: FloatArray, places: _Places, bandwidth_hz: float) -> FloatArray:
        """Transmit power over a bandwidth, at most `most`."""
        control = self.radio.power_control
        if control is None:
            return most
        return power_dbm(
            most,
            control.p0_dbm,
            control.alpha,
            -10 * np.log10(places.own_gain),
            bandwidth_hz,
        )

    def _links(self, device: NDArray[np.int64], places: _Places, time_s: float) -> LinkState:
        """Rates and SNRs of devices at their places."""
        radio, gain = self.radio, places.own_gain
        most = self.max_power_dbm[device]
        noise = self._noise_w_hz[places.cell]
        snr_bandwidth = _watts(most) * gain / noise
        power = self._power_dbm(most, places, radio.bandwidth_hz)
        snr_db = 10 * np.log10(_watts(power) * gain / (noise * radio.bandwidth_hz))
        density = _watts(radio.bs_power_dbm) / radio.downlink_bandwidth_hz
        device_noise = np.full(len(device), self._device_noise_w_hz)
        if radio.layout is not None:
            device_noise += downlink_interference_w_hz(
                places.gain, places.cell, density, radio.load
            )
        downlink_snr = density * gain / device_noise
        k_db = self._k_db(device, places)
        sends = np.ones(len(device))
        outage = np.zeros(len(device), dtype=np.bool_)
        faded_db: FloatArray | None = k_db
        if radio.fading.kind == "block" and radio.fades:
            block_s = radio.fading.block_s
            begun_s = float(whole_periods(np.array(time_s), block_s)) * block_s
            now = self._fading(device, begun_s, _ratio(k_db))
            snr_bandwidth, faded_db = snr_bandwidth * np.maximum(now, DEEPEST_FADE), None
        if radio.fading.kind == "per-round" and radio.fades:
            k_factor = _ratio(k_db)
            least = 10 ** ((radio.fading.outage_snr_db - snr_db) / 10)
            if radio.analog is not None:
                least = np.full(len(device), radio.analog.threshold)
            sends = 1 - fading.outage_probability(least, k_factor)
            now = self._fading(device, time_s, k_factor)
            outage = (now < least) | (sends < LEAST_PROBABILITY)
            snr_bandwidth, faded_db = snr_bandwidth * now, None
        return LinkState(
            x_m=places.x_m,
            y_m=places.y_m,
            distance_m=places.distance_m,
            cell=places.cell,
            los=places.los,
            path_loss_db=places.path_loss_db,
            shadowing_db=places.shadowing_db,
            rician_k_db=k_db,
            tx_power_dbm=power,
            snr_db=snr_db,
            downlink_snr_db=10 * np.log10(downlink_snr),
            uplink=uplink(radio, most, -10 * np.log10(gain), snr_bandwidth, faded_db),
            downlink=faded_link(
                radio, radio.downlink_modem, radio.downlink_bandwidth_hz * downlink_snr, k_db
            ),
            sends_probability=sends,
            outage=outage,
        )

    def _fading(self, device: NDArray[np.int64], time_s: float, k_factor: FloatArray) -> FloatArray:
        """Powers (M,) of the small-scale channel relative to their mean."""
        # One shift for good: a change of it would make the phase jump.
        shift = fading.doppler_hz(self.radio.fading.speed_m_s, self.radio.carrier_hz)
        return fading.power(self._seed, device, time_s, shift, k_factor)

    def _k_db(self, device: NDArray[np.int64], places: _Places) -> FloatArray:
        """Rician factors in whole dB, so that devices share curves; NaN out of sight or indoors."""
        mean_and_std = self.radio.environment.rician_k_db
        if mean_and_std is None or not self.radio.fading.rician:
            return np.full(len(device), np.nan)
        mean, std = mean_and_std
        drawn = mean + std * streams.normal(self._seed, "radio.rician", device)
        seen = places.los & (self._walls_db[device] == 0)
        return np.where(seen, np.clip(np.rint(drawn), *_K_RANGE_DB), np.nan)


def _ratio(k_db: FloatArray) -> FloatArray:
    """Rician factors as ratios, zero for Rayleigh."""
    return np.where(np.isnan(k_db), 0.0, 10 ** (np.nan_to_num(k_db) / 10))


def _watts(dbm: float | FloatArray) -> FloatArray:
    """Power in W, or density in W/Hz."""
    return np.asarray(10 ** ((np.asarray(dbm, dtype=np.float64) - 30) / 10))
