"""The radio of a cell: propagation, link budget, modem and fading."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from wireless.analog import Analog
from wireless.efficiency import Efficiency, FittedNr, LinkAdaptation, Shannon
from wireless.layout import Layout
from wireless.nr import OVERHEAD
from wireless.propagation import Environment, UMa

#: Least power of block fading relative to its mean.
DEEPEST_FADE = 1e-3


@dataclass(frozen=True, slots=True)
class Fading:
    """How the small-scale channel is seen.

    Parameters
    ----------
    kind : {"ergodic", "per-round", "block", "none"}
        Rates are means over the fading of a transfer; or the uplink of a round's start holds for
        the round, or that of a block's start for the block, while downlinks stay means; or the
        channel is constant.
    rician : bool
        Whether devices in line of sight have a Rician factor; all others fade as Rayleigh.
    outage_snr_db : float
        Per-round fading only: a device below this SNR over the whole band drops out of the round.
    speed_m_s : float
        Speed of the devices, or of what moves around them, that the Doppler shift is reckoned with;
        the default is the 3 km/h of TR 38.901, table 7.2-1.
    block_s : float
        Block fading only: length of a block in seconds, > 0. A fade counts as no deeper than
        `DEEPEST_FADE`, so that every rate is positive.
    """

    kind: Literal["ergodic", "per-round", "block", "none"] = "ergodic"
    rician: bool = True
    outage_snr_db: float = -10.0
    speed_m_s: float = 3 / 3.6
    block_s: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("ergodic", "per-round", "block", "none"):
            raise ValueError(f"kind must be ergodic, per-round, block or none, got {self.kind!r}")
        if not 0 < self.block_s < math.inf:
            raise ValueError(f"block_s must be finite and positive, got {self.block_s}")
        if not math.isfinite(self.outage_snr_db):
            raise ValueError(f"outage_snr_db must be finite, got {self.outage_snr_db}")
        if not 0 < self.speed_m_s < math.inf:
            # A channel that never changes would keep some devices out for ever.
            raise ValueError(f"speed_m_s must be finite and positive, got {self.speed_m_s}")


@dataclass(frozen=True, slots=True)
class PowerControl:
    """Open-loop uplink power control of TS 38.213, clause 7.1.1.

    Parameters
    ----------
    p0_dbm : float
        Power wanted at the base station in 180 kHz, in dBm.
    alpha : float
        Share of the path loss that is compensated, in [0, 1].
    """

    p0_dbm: float = -80.0
    alpha: float = 0.8

    def __post_init__(self) -> None:
        if not math.isfinite(self.p0_dbm):
            raise ValueError(f"p0_dbm must be finite, got {self.p0_dbm}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha}")


@dataclass(frozen=True, slots=True)
class RadioParameters:
    """A cell, or several, and the link budget.

    Parameters
    ----------
    environment : Environment
        Path loss, line of sight, shadowing.
    bandwidth_hz : float
        Uplink band shared by the cohort, in Hz, > 0.
    downlink_bandwidth_hz : float
        Downlink band in Hz, > 0.
    carrier_hz : float
        Carrier frequency in Hz, within the environment's range.
    cell_radius_m : float
        Largest horizontal distance of a device, in metres, within the environment's range; of no
        effect with a `layout`, whose cells are hexagons.
    min_distance_m : float
        Smallest horizontal distance; the default is that of TR 38.901, table 7.2-1.
    bs_height_m, ut_height_m : float, optional
        Antenna heights of the base station and of the devices, in metres; the environment's own
        if not given.
    bs_power_dbm : float
        Transmit power of the base station in dBm.
    noise_density_dbm_hz : float
        Thermal noise density in dBm/Hz; the default is kT at 290 K.
    bs_noise_figure_db, ut_noise_figure_db : float
        Noise figures of the receivers in dB, >= 0.
    bs_antenna_gain_db, ut_antenna_gain_db : float
        Antenna gains in dBi, counted in both directions. The base station's default is the peak
        element gain of TR 38.901, table 7.3-1.
    extra_loss_db : float
        Further loss on every link in dB, >= 0.
    indoor_share : float
        Share of the devices behind walls, in [0, 1].
    building : {"low-loss", "high-loss"}
        The walls, by TR 38.901, table 7.4.3-2.
    efficiency : Efficiency
        Bit/s/Hz that an SNR buys. From the NR modems, control and reference signals take the
        overhead of TS 38.306.
    fading : Fading
        How the small-scale channel is seen.
    uplink_share : float
        Share of the time that the uplink has, in (0, 1]: below one, time-division duplex, in which
        the downlink has the rest of the time; one is frequency-division duplex.
    power_control : PowerControl, optional
        Full power if not given.
    block_hz : float, optional
        Width of a resource block to whose multiples bands are rounded; divided freely if not given.
    layout : Layout, optional
        Sites of several cells, each with the bands above; one cell if not given.
    load : float
        Share of time and band in which the other cells of a layout send, in [0, 1]: base stations
        at their power, and in the uplink senders of 23 dBm placed like devices.
    senders : float
        Mean number of devices that send at the same time in such a cell, each with its whole power
        on a part of the band, >= 0.
    analog : Analog, optional
        Over-the-air aggregation, with fading per round or none: the uplink's rate is that of its
        numbers, and its threshold takes the place of the outage SNR. Digital if not given.

    Raises
    ------
    ValueError
        If a value is outside its range; the message names the field.
    """

    environment: Environment = field(default_factory=UMa)
    bandwidth_hz: float = 1e6
    downlink_bandwidth_hz: float = 5e6
    carrier_hz: float = 3.5e9
    cell_radius_m: float = 500.0
    min_distance_m: float = 35.0
    bs_height_m: float | None = None
    ut_height_m: float | None = None
    bs_power_dbm: float = 43.0
    noise_density_dbm_hz: float = -173.98
    bs_noise_figure_db: float = 5.0
    ut_noise_figure_db: float = 9.0
    bs_antenna_gain_db: float = 8.0
    ut_antenna_gain_db: float = 0.0
    extra_loss_db: float = 0.0
    indoor_share: float = 0.0
    building: Literal["low-loss", "high-loss"] = "low-loss"
    efficiency: Efficiency = field(default_factory=FittedNr)
    fading: Fading = field(default_factory=Fading)
    uplink_share: float = 1.0
    power_control: PowerControl | None = None
    block_hz: float | None = None
    layout: Layout | None = None
    load: float = 1.0
    senders: float = 1.0
    analog: Analog | None = None

    def __post_init__(self) -> None:
        """Check every range and take the environment's heights."""
        for name in ("bs_height_m", "ut_height_m"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(self.environment, name))
        ranges = {
            "bandwidth_hz": (1.0, math.inf),
            "downlink_bandwidth_hz": (1.0, math.inf),
            "bs_power_dbm": (-math.inf, math.inf),
            "noise_density_dbm_hz": (-math.inf, math.inf),
            "bs_noise_figure_db": (0.0, math.inf),
            "ut_noise_figure_db": (0.0, math.inf),
            "bs_antenna_gain_db": (-math.inf, math.inf),
            "ut_antenna_gain_db": (-math.inf, math.inf),
            "extra_loss_db": (0.0, math.inf),
            "indoor_share": (0.0, 1.0),
            "load": (0.0, 1.0),
            "senders": (0.0, math.inf),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                raise ValueError(f"{name} must be finite, from {low:g} to {high:g}, got {value}")
        if not 0 < self.uplink_share <= 1:
            raise ValueError(f"uplink_share must be in (0, 1], got {self.uplink_share}")
        if self.block_hz is not None and not 0 < self.block_hz <= self.bandwidth_hz:
            raise ValueError(
                f"block_hz must be positive and at most bandwidth_hz = {self.bandwidth_hz:g}, "
                f"got {self.block_hz}"
            )
        if self.fading.kind == "block" and isinstance(self.efficiency, LinkAdaptation):
            raise ValueError(
                "fading must not be block with link adaptation, which sends nothing in a fade; "
                "take another modulation"
            )
        if self.analog is not None and self.fading.kind not in ("per-round", "none"):
            raise ValueError(
                "fading must be per-round or none with an analog uplink, which inverts one gain "
                f"for the whole transfer, got {self.fading.kind}"
            )
        if self.building not in ("low-loss", "high-loss"):
            raise ValueError(f"building must be low-loss or high-loss, got {self.building!r}")
        if self.indoor_share > 0 and self.environment.name not in ("uma", "umi", "rma"):
            raise ValueError(
                f"indoor_share must be 0 in environment {self.environment.name}, where no base "
                f"station is outside a building, got {self.indoor_share}"
            )
        # A device of a hexagon may be nowhere farther from its site than half the way to the next.
        reach, most = "cell_radius_m", self.cell_radius_m
        if self.layout is not None:
            reach, most = "half of inter_site_m", self.layout.inter_site_m / 2
        if not self.min_distance_m < most:
            raise ValueError(
                f"min_distance_m must be below {reach} = {most:g}, got {self.min_distance_m:g}"
            )
        assert self.bs_height_m is not None
        assert self.ut_height_m is not None
        try:
            self.environment.check(
                self.carrier_hz,
                self.bs_height_m,
                self.ut_height_m,
                self.min_distance_m,
                self.reach_m,
            )
        except ValueError as error:
            reach = "cell_radius_m" if self.layout is None else "inter_site_m"
            raise ValueError(str(error).replace("max_distance_m", reach)) from None

    @property
    def reach_m(self) -> float:
        """Largest horizontal distance of a device from a site that may serve it, in metres."""
        return self.cell_radius_m if self.layout is None else self.layout.inter_site_m

    @property
    def uplink_modem(self) -> Efficiency:
        """Bit/s/Hz that an uplink SNR buys, the downlink's time and the overhead taken off."""
        return self._modem("uplink", self.uplink_share)

    @property
    def downlink_modem(self) -> Efficiency:
        """Bit/s/Hz that a downlink SNR buys, the uplink's time and the overhead taken off."""
        return self._modem("downlink", 1.0 if self.uplink_share == 1 else 1 - self.uplink_share)

    def _modem(self, direction: Literal["uplink", "downlink"], time_share: float) -> Efficiency:
        if not isinstance(self.efficiency, Shannon):
            frequency_range: Literal["FR1", "FR2"] = "FR1" if self.carrier_hz < 7.125e9 else "FR2"
            time_share *= 1 - OVERHEAD[frequency_range, direction]
        return replace(self.efficiency, share=self.efficiency.share * time_share)

    @property
    def fades(self) -> bool:
        """Whether anything fades: not where it is switched off, nor where nothing scatters."""
        k_db = self.environment.rician_k_db
        return self.fading.kind != "none" and not (
            self.fading.rician and k_db is not None and k_db[0] == math.inf
        )

    @property
    def antennas_db(self) -> float:
        """Gains of the antennas less the further loss."""
        return self.bs_antenna_gain_db + self.ut_antenna_gain_db - self.extra_loss_db
