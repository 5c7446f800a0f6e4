"""How many bit/s/Hz an SNR buys: Shannon with a gap, a fitted NR curve, link adaptation.

=============== ====================================================================
efficiency      bit/s/Hz of an SNR u, times the share
=============== ====================================================================
Shannon         log2(1 + u/gap)
FittedNr        0.9 min(5.55, 0.90 log2(1 + u/1.114))
LinkAdaptation  (1 - block error) x bits per symbol of the best step that u decodes
=============== ====================================================================

The share is what overhead and a time share of the link leave of the band, in (0, 1].
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from wireless.checks import check_share

#: SNR in dB at which a tenth of the code blocks fails, and dB per standard deviation of the
#: waterfall, by (bits per symbol, 1024 x code rate) of TS 38.214. Measured: see `LinkAdaptation`.
_WATERFALL: dict[tuple[int, int], tuple[float, float]] = {
    (2, 78): (-7.97, 0.140),
    (2, 120): (-6.07, 0.154),
    (2, 157): (-4.89, 0.130),
    (2, 193): (-4.01, 0.136),
    (2, 251): (-2.76, 0.160),
    (2, 308): (-1.69, 0.165),
    (2, 379): (-0.56, 0.154),
    (2, 449): (0.42, 0.134),
    (2, 526): (1.37, 0.132),
    (2, 602): (2.30, 0.176),
    (2, 679): (3.19, 0.185),
    (4, 340): (3.47, 0.167),
    (4, 378): (4.18, 0.176),
    (4, 434): (5.10, 0.189),
    (4, 490): (6.03, 0.190),
    (4, 553): (7.03, 0.171),
    (4, 616): (8.00, 0.166),
    (4, 658): (8.64, 0.184),
    (6, 438): (9.12, 0.200),
    (6, 466): (9.70, 0.210),
    (6, 517): (10.73, 0.237),
    (6, 567): (11.67, 0.195),
    (6, 616): (12.64, 0.227),
    (6, 666): (13.64, 0.224),
    (6, 719): (14.52, 0.236),
    (6, 772): (15.53, 0.219),
    (6, 822): (16.50, 0.211),
    (6, 873): (17.53, 0.216),
    (6, 910): (18.41, 0.252),
    (6, 948): (19.52, 0.281),
}

#: TS 38.214, table 5.1.3.1-1, MCS 0 to 28.
_MCS_64QAM = tuple(
    (bits, rate)
    for bits, rates in (
        (2, (120, 157, 193, 251, 308, 379, 449, 526, 602, 679)),
        (4, (340, 378, 434, 490, 553, 616, 658)),
        (6, (438, 466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948)),
    )
    for rate in rates
)

#: TS 38.214, table 5.2.2.1-2, CQI 1 to 15.
_CQI_64QAM = tuple(
    (bits, rate)
    for bits, rates in (
        (2, (78, 120, 193, 308, 449, 602)),
        (4, (378, 490, 616)),
        (6, (466, 567, 666, 772, 873, 948)),
    )
    for rate in rates
)

_TABLES = {"mcs-64qam": _MCS_64QAM, "cqi-64qam": _CQI_64QAM}


@dataclass(frozen=True, slots=True)
class Shannon:
    """Shannon's capacity at an SNR gap, share log2(1 + u/gap).

    Parameters
    ----------
    gap_db : float
        Distance of the modem to capacity in dB, >= 0.
    share : float
        Share of the band that carries data, in (0, 1].

    Raises
    ------
    ValueError
        If the gap is negative or not finite, or the share outside its range.
    """

    gap_db: float = 1.73
    share: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.gap_db < math.inf:
            raise ValueError(f"gap_db must be finite and not negative, got {self.gap_db}")
        check_share(self.share)

    @property
    def log_form(self) -> tuple[float, float, float]:
        """Scale, gap as a ratio, and peak of min(peak, scale log2(1 + u/gap)) in bit/s/Hz."""
        return self.share, 10 ** (self.gap_db / 10), math.inf

    def bps_hz(self, snr: ArrayLike) -> NDArray[np.float64]:
        """Return the efficiencies in bit/s/Hz at SNRs as ratios, of the same shape."""
        return _log_bps_hz(snr, *self.log_form)


@dataclass(frozen=True, slots=True)
class FittedNr:
    """A fit to one layer of NR under link adaptation, 0.9 share min(5.55, 0.90 log2(1 + u/1.114)).

    AWGN, 64QAM table; the peak is that of CQI 15. The fit is of what is sent at a tenth of the
    blocks in error, so nine tenths of it arrive.

    Parameters
    ----------
    share : float
        Share of the band that carries data, in (0, 1].

    Raises
    ------
    ValueError
        If the share is outside its range.

    References
    ----------
    The form is that of TR 36.942, annex A (attenuated and truncated Shannon bound); the figures
    are a fit to link adaptation whose data are not published.
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        """Check the share."""
        check_share(self.share)

    @property
    def log_form(self) -> tuple[float, float, float]:
        """Scale, gap as a ratio, and peak of min(peak, scale log2(1 + u/gap)) in bit/s/Hz."""
        arrives = 0.9 * self.share
        return 0.90 * arrives, 1.114, 5.55 * arrives

    def bps_hz(self, snr: ArrayLike) -> NDArray[np.float64]:
        """Return the efficiencies in bit/s/Hz at SNRs as ratios, of the same shape."""
        return _log_bps_hz(snr, *self.log_form)


def _log_bps_hz(snr: ArrayLike, scale: float, gap: float, peak: float) -> NDArray[np.float64]:
    """Evaluate min(peak, scale log2(1 + u/gap))."""
    ratio = np.asarray(snr, dtype=np.float64) / gap
    return np.asarray(np.minimum(peak, scale / math.log(2) * np.log1p(ratio)))


@dataclass(frozen=True, slots=True)
class LinkAdaptation:
    """The best modulation and coding scheme of an NR table at a target of block errors.

    Parameters
    ----------
    table : {"mcs-64qam", "cqi-64qam"}
        Steps of TS 38.214, table 5.1.3.1-1 (29 schemes, one layer) or 5.2.2.1-2 (the 15 a
        channel report can name).
    block_error : float
        Share of the code blocks that may fail, in [0.001, 0.5]. What a step delivers is its
        efficiency times the rest; a failed block is sent again.
    share : float
        Share of the band that carries data, in (0, 1].

    Raises
    ------
    ValueError
        If the table is unknown or a value outside its range.

    Notes
    -----
    Each step decodes from its threshold on; below the lowest nothing is sent. A scheme that
    another one beats at a lower SNR is left out.

    The thresholds were measured with the NR LDPC code of Sionna 2.2.0 (sum-product decoding, 20
    iterations): one code block of 3200 bits over AWGN, at three or more SNRs (two for CQI 1) 0.1 to
    0.2 dB apart, 400 blocks or 40 errors or more at each, which leaves some 0.03 dB to chance.
    Rates below 1/5 repeat the code word of rate 1/5, as rate matching does. The share of failed
    blocks is close to Q((SNR - s) / w) in dB, as the normal approximation makes one expect
    (Polyanskiy, Poor and Verdu, "Channel coding rate in the finite blocklength regime", IEEE
    Trans. Inf. Theory 56, 2010); the figures are the SNR of a tenth under the fit, and w. Targets
    below a few hundredths extrapolate that line. The tables that come with Sionna have points
    1.8 dB apart, too few to tell.
    """

    table: Literal["mcs-64qam", "cqi-64qam"] = "mcs-64qam"
    block_error: float = 0.1
    share: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.table not in _TABLES:
            raise ValueError(f"table must be one of {sorted(_TABLES)}, got {self.table!r}")
        if not 0.001 <= self.block_error <= 0.5:
            raise ValueError(f"block_error must be in [0.001, 0.5], got {self.block_error}")
        check_share(self.share)

    @property
    def nominal_bps_hz(self) -> NDArray[np.float64]:
        """Bits per symbol of every scheme of the table, as in the standard, shape (M,)."""
        return np.array([bits * rate / 1024 for bits, rate in _TABLES[self.table]])

    @property
    def threshold_db(self) -> NDArray[np.float64]:
        """SNRs in dB from which the schemes of the table meet the target, shape (M,)."""
        tenth, width = np.array([_WATERFALL[scheme] for scheme in _TABLES[self.table]]).T
        threshold: NDArray[np.float64] = tenth + width * (ndtri(0.1) - ndtri(self.block_error))
        return threshold

    @property
    def steps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """SNRs as ratios from which better steps decode, and their bit/s/Hz, both rising."""
        order = np.argsort(self.threshold_db, kind="stable")
        level = self.nominal_bps_hz[order]
        best = np.maximum.accumulate(level)
        new = np.diff(best, prepend=0.0) > 0
        # Of two steps at one threshold the better one counts.
        threshold = 10 ** (self.threshold_db[order][new] / 10)
        last = np.append(np.diff(threshold) > 0, True)
        return threshold[last], level[new][last] * (1 - self.block_error) * self.share

    def bps_hz(self, snr: ArrayLike) -> NDArray[np.float64]:
        """Return the efficiencies in bit/s/Hz at SNRs as ratios, of the same shape."""
        threshold, level = self.steps
        decoded = np.searchsorted(threshold, np.asarray(snr, dtype=np.float64), side="right")
        return np.asarray(np.append(0.0, level)[decoded])


Efficiency: TypeAlias = Shannon | FittedNr | LinkAdaptation
