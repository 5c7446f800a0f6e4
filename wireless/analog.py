"""The uplink of over-the-air aggregation: all devices send at once, and the channel adds them up.

A device whose fading power gamma = |h|^2 / E|h|^2 is at least a threshold g inverts its channel,
x = sqrt(eta) s conj(h) / |h|^2, so that y = sqrt(eta) sum_n s_n + z arrives; the others are silent
(truncated channel inversion: broadband analog aggregation, arXiv 1812.11494, of which the abstract
alone was read). A complex symbol carries two numbers, one a second and hertz (Nyquist), and the
receiver's y / sqrt(eta) has noise of variance sigma^2 / (2 eta) in each of them.

The mean power of device n over fading, silence included, is eta E[1/gamma; gamma >= g] times that
of s_n over its mean gain beta_n; the expectation is E1(g) under Rayleigh fading. It stays within
the device's power P_n for every eta up to P_n beta_n / (E[1/gamma; gamma >= g] |s_n|^2), |s_n|^2
per symbol, and the least of these bounds serves all (own derivation).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wireless import fading


@dataclass(frozen=True, slots=True)
class Analog:
    """Truncated channel inversion.

    Parameters
    ----------
    threshold : float
        Least fading power relative to its mean at which a device sends, in (0, 1].
    number_bits : int
        Bits that a number would take in a digital upload: rates are told in them.
    """

    threshold: float = 0.2
    number_bits: int = 32

    def __post_init__(self) -> None:
        """Check the threshold: at zero the mean power of inversion is infinite."""
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], got {self.threshold}")
        if self.number_bits < 1:
            raise ValueError(f"number_bits must be positive, got {self.number_bits}")

    @property
    def bps_hz(self) -> float:
        """Bits of the numbers that a second and hertz carry, whatever the SNR."""
        return 2.0 * self.number_bits

    def inverse_snr(
        self, snr_db: NDArray[np.float64], k_factor: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Return E[1/gamma; gamma >= g] over the mean SNR, shape (M,).

        Noise power per symbol over the largest mean power that s_n can arrive with.

        Parameters
        ----------
        snr_db : ndarray, shape (M,)
            Mean SNRs at full power over the whole band, in dB.
        k_factor : ndarray, shape (M,), or None
            Rician factors as ratios, zero for Rayleigh; None for a channel that does not fade.
        """
        inverse = np.ones(len(snr_db))
        if k_factor is not None:
            inverse = fading.truncated_moment(-1, np.full(len(snr_db), self.threshold), k_factor)
        return np.asarray(inverse * 10 ** (-snr_db / 10))
