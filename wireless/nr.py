"""Resource grid and peak rates of 5G NR.

A slot has 14 symbols (normal cyclic prefix) and lasts 1 ms / 2^mu at the subcarrier spacing
15 kHz x 2^mu; a resource block is 12 subcarriers wide.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SUBCARRIERS = 12

_FR1_MHZ = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100)

#: Resource blocks by frequency range, subcarrier spacing in kHz and channel bandwidth in MHz: TS
#: 38.101-1, table 5.3.2-1 (release 17), and TS 38.101-2, table 5.3.2-1 (release 15).
_BLOCKS: Mapping[str, Mapping[int, Mapping[int, int]]] = MappingProxyType(
    {
        "FR1": {
            15: dict(zip(_FR1_MHZ, (25, 52, 79, 106, 133, 160, 188, 216, 242, 270), strict=False)),
            30: dict(
                zip(
                    _FR1_MHZ,
                    (11, 24, 38, 51, 65, 78, 92, 106, 119, 133, 162, 189, 217, 245, 273),
                    strict=True,
                )
            ),
            60: dict(
                zip(
                    _FR1_MHZ[1:],
                    (11, 18, 24, 31, 38, 44, 51, 58, 65, 79, 93, 107, 121, 135),
                    strict=True,
                )
            ),
        },
        "FR2": {
            60: {50: 66, 100: 132, 200: 264},
            120: {50: 32, 100: 66, 200: 132, 400: 264},
        },
    }
)

#: Share of the peak rate that control and reference signals take (TS 38.306, clause 4.1.2).
OVERHEAD: Mapping[tuple[str, str], float] = MappingProxyType(
    {
        ("FR1", "downlink"): 0.14,
        ("FR2", "downlink"): 0.18,
        ("FR1", "uplink"): 0.08,
        ("FR2", "uplink"): 0.10,
    }
)


def _check_numerology(numerology: int) -> None:
    """Refuse a numerology that has no data channel."""
    if numerology not in range(4):
        raise ValueError(f"numerology must be 0, 1, 2 or 3, got {numerology}")


def subcarrier_spacing_hz(numerology: int) -> float:
    """Return the subcarrier spacing of a numerology mu = 0 to 3, 15 kHz x 2^mu, in Hz.

    Raises
    ------
    ValueError
        If the numerology is outside 0 to 3.

    References
    ----------
    TS 38.211, table 4.2-1.
    """
    _check_numerology(numerology)
    return 15e3 * (1 << numerology)


def slot_s(numerology: int) -> float:
    """Return the length of a slot of 14 symbols, 1 ms / 2^mu, in seconds.

    Errors are those of `subcarrier_spacing_hz`; the source is TS 38.211, table 4.3.2-1.
    """
    _check_numerology(numerology)
    return 1e-3 / (1 << numerology)


def block_hz(numerology: int) -> float:
    """Return the width of a resource block of 12 subcarriers in Hz.

    Errors are those of `subcarrier_spacing_hz`.
    """
    return _SUBCARRIERS * subcarrier_spacing_hz(numerology)


def resource_blocks(
    channel_hz: float, numerology: int, frequency_range: Literal["FR1", "FR2"] = "FR1"
) -> int:
    """Return the number of resource blocks of a channel, its guard bands left out.

    Parameters
    ----------
    channel_hz : float
        Channel bandwidth in Hz, one that the standard has: 5 to 100 MHz in FR1 (up to 50 MHz at
        15 kHz, from 10 MHz at 60 kHz), 50 to 400 MHz in FR2.
    numerology : int
        mu: 0, 1, 2 in FR1; 2, 3 in FR2.
    frequency_range : {"FR1", "FR2"}
        Below 7.125 GHz or above 24.25 GHz.

    Returns
    -------
    int
        N_RB.

    Raises
    ------
    ValueError
        If the standard has no such channel; the message lists those it has.

    References
    ----------
    TS 38.101-1 and 38.101-2, table 5.3.2-1.
    """
    if frequency_range not in _BLOCKS:
        raise ValueError(f"frequency_range must be 'FR1' or 'FR2', got {frequency_range!r}")
    spacings = _BLOCKS[frequency_range]
    spacing = round(subcarrier_spacing_hz(numerology) / 1e3)
    if spacing not in spacings:
        raise ValueError(
            f"numerology must give one of {sorted(spacings)} kHz in {frequency_range}, "
            f"got {numerology} ({spacing} kHz)"
        )
    channels = spacings[spacing]
    for mhz, blocks in channels.items():
        if math.isclose(channel_hz, mhz * 1e6):
            return blocks
    raise ValueError(
        f"channel_hz must be one of {sorted(channels)} MHz at {spacing} kHz in "
        f"{frequency_range}, got {channel_hz:g}"
    )


def peak_rate_bps(
    layers: int,
    modulation_bits: int,
    blocks: int,
    numerology: int,
    overhead: float,
    scaling: float = 1.0,
    code_rate: float = 948 / 1024,
) -> float:
    """Return the highest data rate of one carrier, v Q f R 12 N / T (1 - OH).

    Parameters
    ----------
    layers : int
        Spatial layers v, at least 1.
    modulation_bits : int
        Bits per symbol Q: 1, 2, 4, 6, 8 or 10.
    blocks : int
        Resource blocks N, at least 1.
    numerology : int
        mu, 0 to 3; the mean symbol lasts T = 1 ms / (14 x 2^mu).
    overhead : float
        Share OH of control and reference signals, in [0, 1); `OVERHEAD` has the standard's.
    scaling : float
        Scaling factor f, in (0, 1]; the standard has 1, 0.8, 0.75 and 0.4.
    code_rate : float
        Highest code rate R, in (0, 1].

    Returns
    -------
    float
        Rate in bit/s, of a carrier that has all slots.

    Raises
    ------
    ValueError
        If a value is outside its range.

    References
    ----------
    TS 38.306, clause 4.1.2.
    """
    if modulation_bits not in (1, 2, 4, 6, 8, 10):
        raise ValueError(f"modulation_bits must be 1, 2, 4, 6, 8 or 10, got {modulation_bits}")
    for name, count in (("layers", layers), ("blocks", blocks)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    for name, share in (("scaling", scaling), ("code_rate", code_rate)):
        if not 0 < share <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {share}")
    if not 0 <= overhead < 1:
        raise ValueError(f"overhead must be in [0, 1), got {overhead}")
    symbols_per_s = 14 / slot_s(numerology)
    bits_per_symbol = layers * modulation_bits * scaling * code_rate * _SUBCARRIERS * blocks
    return bits_per_symbol * symbols_per_s * (1 - overhead)


def whole_blocks(bandwidth_hz: ArrayLike, band_hz: float, block_hz: float) -> NDArray[np.float64]:
    """Round a division of a band to whole resource blocks.

    Everybody with a positive bandwidth gets at least one block. A bandwidth that is worth less
    than one takes exactly one, and the rest of the blocks goes to the others in proportion to
    theirs, by largest remainder: each gets its proportion rounded down or up. As many blocks are
    given out as the bandwidths together are worth, or one per device if that is more.

    Parameters
    ----------
    bandwidth_hz : array_like, shape (M,)
        Bandwidths in Hz, >= 0.
    band_hz : float
        Width of the band in Hz, which holds floor(band / block) blocks.
    block_hz : float
        Width of a block in Hz, > 0.

    Returns
    -------
    ndarray, shape (M,)
        Bandwidths in Hz, whole multiples of the block. Equal remainders go to the lower number.

    Raises
    ------
    ValueError
        If a bandwidth is negative or not finite, a width not positive, or there are more senders
        than blocks.
    """
    wanted = np.asarray(bandwidth_hz, dtype=np.float64)
    if wanted.ndim != 1:
        raise ValueError(f"bandwidth_hz must have one dimension, got shape {wanted.shape}")
    if not (np.isfinite(wanted) & (wanted >= 0)).all():
        raise ValueError("bandwidth_hz must be finite and not negative")
    for name, width in (("band_hz", band_hz), ("block_hz", block_hz)):
        if not 0 < width < math.inf:
            raise ValueError(f"{name} must be finite and positive, got {width}")
    # A rounding below a whole number of blocks counts as that number.
    available = math.floor(band_hz / block_hz * (1 + 1e-9))
    senders = wanted > 0
    quota = wanted[senders] / block_hz
    if len(quota) > available:
        raise ValueError(
            f"{len(quota)} devices send over {available} blocks of {block_hz:g} Hz: have fewer "
            "send at once, or choose a wider band or a narrower block"
        )
    total = max(min(available, math.floor(float(quota.sum()) * (1 + 1e-9))), len(quota))
    # To lift some to one block shrinks the rest, which may take more below one.
    small = np.zeros(len(quota), dtype=np.bool_)
    share = quota
    while True:
        rest = total - np.count_nonzero(small)
        share = np.where(small, 1.0, quota * (rest / max(quota[~small].sum(), 1e-300)))
        below = ~small & (share <= 1)
        if not below.any():
            break
        small |= below
    blocks = np.floor(share)
    order = np.argsort(blocks - share, kind="stable")
    blocks[order[: total - int(blocks.sum())]] += 1
    whole = np.zeros(len(wanted))
    whole[senders] = blocks * block_hz
    return whole
