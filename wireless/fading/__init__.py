"""Small-scale fading: the power |h|^2, of mean 1, of Rayleigh and Rician channels.

K is the Rician factor, the power of the line-of-sight ray over that of all others, as a ratio and
not in dB; zero is Rayleigh.
"""

from wireless.fading.distribution import (
    outage_probability,
    quantile,
    truncated_mean,
    truncated_moment,
)
from wireless.fading.process import doppler_hz, gain, power

__all__ = [
    "doppler_hz",
    "gain",
    "outage_probability",
    "power",
    "quantile",
    "truncated_mean",
    "truncated_moment",
]
