"""What the optimizer is asked: one fleet, one link, one round model."""

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.rounds import FloatArray, Progress, RoundModel
from wireless.link import Link
from wireless.spectrum import RULES, solo_finish_time

IntArray = NDArray[np.int64]

#: Fields that are positive, with the most they may be, and others that hold a number per device.
_MOST = {
    "completion": 1.0,
    "download_bps": np.inf,
    "min_probability": 1.0,
    "energy_limit_j": np.inf,
}
_PER_DEVICE = ("cell", "compute_power_w", "transmit_power_w", "fixed_bits", "fixed_down_bits")


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """The joint problem: minimise ``R(q, k) * (T_oh + E[T(q, k)])`` over q and k.

    The cohort of a round contains device n with probability q_n, independently of the others. Its
    members compute for ``tau_n(k) = compute_base_s + k compute_per_rank_s`` and upload
    ``u_n(k) = fixed_bits + k bits_per_rank`` over the uplink band of their cell, divided by the
    allocation rule. An empty cohort costs the overhead alone.

    Parameters
    ----------
    weight : array_like, shape (N,)
        Data weights a_n >= 0, which sum to one.
    gradient_norm : array_like, shape (N,)
        Norms G_n >= 0 of the local gradients, in any unit: only their ratios count.
    compute_base_s, compute_per_rank_s : array_like, shape (N,)
        Compute time (s) and its slope in the rank (s), both >= 0.
    fixed_bits : array_like, shape () or (N,)
        Uploads (bit) but for what depends on the rank, >= 0.
    bits_per_rank : float
        Their slope in the rank (bit), >= 0, above zero if a device has no fixed bits.
    link : Link
        Uplinks of the N devices.
    bandwidth_hz : float
        Band that the cohort shares (Hz), > 0.
    overhead_s : float
        Duration of a round that is paid whoever takes part (s), > 0.
    rank : int
        Global LoRA rank r >= 1.
    rank_cap : array_like of int, shape (N,)
        Highest rank of each device, in 1..r.
    min_rank : int
        Lowest rank that the method can train, at least 1 and at most every cap.
    min_probability : array_like, shape () or (N,)
        Lower bounds of the q_n, in (0, 1].
    min_cohort : float
        Lower bound of the expected cohort ``sum_n q_n``, in [0, N].
    max_noise : float
        Upper bound, > 0, of the noise ``sum_n A_n / (x_n q_n)`` of a plan, above which training is
        not expected to be stable; see `noise` and `noise_limit`.
    rounds : RoundModel
        Rounds that a plan needs.
    allocation : str
        Rule that divides the band, a key of `wireless.spectrum.RULES`.
    completion : array_like, shape () or (N,)
        Probabilities in (0, 1] that a sampled device is there and sends, which its aggregation
        weight is divided by. A device that does not costs no time.
    cell : array_like of int, shape () or (N,)
        Cells of the devices, each with a band of its own; one cell if not given.
    download_bps : array_like, shape (N,), optional
        Rates (bit/s) at which each cell sends its members their sketches one after the other, in
        the order of the devices; if not given, it broadcasts and `overhead_s` has it all.
    fixed_down_bits : array_like, shape () or (N,)
        Such downloads (bit) but for what depends on the rank, >= 0.
    down_bits_per_rank : float
        Their slope in the rank (bit), >= 0.
    deadline_s : float
        Upper bound of the expected duration of a round (s), overhead included.
    energy_limit_j : array_like, shape () or (N,)
        Upper bounds of the energy (J) that each device spends in a round on average, over the
        rounds that it sits out too.
    compute_power_w, transmit_power_w : array_like, shape () or (N,)
        Power (W) of each device while it computes, and from then until the round's uploads end.

    Attributes
    ----------
    cells : int
        Number of bands that are used at the same time.

    Raises
    ------
    ValueError
        If a field is out of range; the message names the field, the value and the remedy.

    Notes
    -----
    Source: own derivation, after arXiv 2501.19389 (sketches) and 2505.23555 (sampling).
    """

    weight: FloatArray
    gradient_norm: FloatArray
    compute_base_s: FloatArray
    compute_per_rank_s: FloatArray
    fixed_bits: FloatArray
    bits_per_rank: float
    link: Link
    bandwidth_hz: float
    overhead_s: float
    rank: int
    rank_cap: IntArray
    min_rank: int = 1
    min_probability: FloatArray = field(default_factory=lambda: np.full(1, 1e-3))
    min_cohort: float = 1.0
    max_noise: float = np.inf
    rounds: RoundModel = field(default_factory=Progress)
    allocation: str = "equal-finish"
    completion: FloatArray = field(default_factory=lambda: np.ones(1))
    cell: IntArray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    download_bps: FloatArray | None = None
    fixed_down_bits: FloatArray = field(default_factory=lambda: np.zeros(1))
    down_bits_per_rank: float = 0.0
    deadline_s: float = np.inf
    energy_limit_j: FloatArray = field(default_factory=lambda: np.full(1, np.inf))
    compute_power_w: FloatArray = field(default_factory=lambda: np.zeros(1))
    transmit_power_w: FloatArray = field(default_factory=lambda: np.zeros(1))
    cells: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("weight", "gradient_norm", "compute_base_s", "compute_per_rank_s", "rank_cap"):
            object.__setattr__(self, name, _device_array(name, getattr(self, name)))
        n = len(self.weight)
        for name in (*_MOST, *_PER_DEVICE):
            value = getattr(self, name)
            if name != "download_bps" and np.size(value) == 1:
                value = np.full(n, value)
            if value is not None:
                object.__setattr__(self, name, _device_array(name, value))
        for item in (one for one in fields(self) if one.init):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray) and len(value) != n:
                raise ValueError(f"{item.name} has {len(value)} devices: give {n}, as weight has")
        if len(self.link) != n:
            raise ValueError(f"link has {len(self.link)} devices: give {n}, as weight has")
        if abs(self.weight.sum() - 1.0) > 1e-6:
            raise ValueError(f"weight sums to {self.weight.sum():.6g}: divide it by its sum")
        if not np.any(self.weight * self.gradient_norm):
            raise ValueError("gradient_norm is zero wherever weight is not: give ones if unknown")
        for name in ("bits_per_rank", "down_bits_per_rank"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: give zero or more bits")
        if np.any(self.fixed_bits + self.bits_per_rank == 0):
            raise ValueError("bits_per_rank is 0 and so is fixed_bits: an upload needs bits")
        for name in ("bandwidth_hz", "overhead_s"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: give a positive number")
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}: give 1 or more")
        object.__setattr__(self, "cells", len(np.unique(self.cell)))
        if np.any(self.rank_cap != np.floor(self.rank_cap)):
            raise ValueError("rank_cap holds fractions: give whole numbers")
        object.__setattr__(self, "rank_cap", self.rank_cap.astype(np.int64))
        self.rank_cap.setflags(write=False)
        outside = (self.rank_cap < 1) | (self.rank_cap > self.rank)
        if outside.any():
            bad = int(np.argmax(outside))
            raise ValueError(
                f"rank_cap of device {bad} is {self.rank_cap[bad]}: give 1 to rank = {self.rank}"
            )
        if not 1 <= self.min_rank <= self.rank_cap.min():
            bad = int(np.argmin(self.rank_cap))
            raise ValueError(
                f"min_rank is {self.min_rank}: give 1 to {self.rank_cap[bad]}, "
                f"which device {bad} can hold"
            )
        if not self.deadline_s > self.overhead_s:
            raise ValueError(
                f"deadline_s is {self.deadline_s}: give more than overhead_s = {self.overhead_s}"
            )
        if not 0 <= self.min_cohort <= n:
            raise ValueError(f"min_cohort is {self.min_cohort}: give 0 to {n}, the devices")
        if not self.max_noise > 0:
            raise ValueError(f"max_noise is {self.max_noise}: give a positive number")
        if self.allocation not in RULES:
            raise ValueError(f"allocation is {self.allocation!r}: give one of {', '.join(RULES)}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None and not np.all((value > 0) & (value <= most)):
                bad = int(np.argmin((value > 0) & (value <= most)))
                raise ValueError(
                    f"{name} of device {bad} is {value[bad]}: give more than 0, at most {most:g}"
                )
        object.__setattr__(self, "cell", self.cell.astype(np.int64))
        rate = np.asarray(self.link.rate(self.bandwidth_hz))
        if not np.all(rate > 0):
            bad = int(np.argmin(rate > 0))
            raise ValueError(f"link of device {bad} has no rate: leave the device out")

    @property
    def devices(self) -> int:
        """Number of devices N."""
        return len(self.weight)

    @property
    def variance(self) -> FloatArray:
        """Variance shares ``A_n = a_n^2 G_n^2 / (c_n sum_m a_m G_m^2)``, shape (N,).

        A device of completion c_n contributes to a round with probability c_n q_n. The weighted
        mean square of G is divided out, so that the round model's constants, which were fitted at
        G = 1, keep their meaning whatever the unit of the gradients.
        """
        square = self.gradient_norm**2
        share = self.weight**2 * square / np.dot(self.weight, square)
        return np.asarray(share / self.completion)

    @property
    def unbiased_weight(self) -> FloatArray:
        """Weights a_n / c_n: divided by q_n too, they make the mean of the cohort unbiased."""
        return np.asarray(self.weight / self.completion)

    @property
    def noise_limit(self) -> float:
        """Noise that a plan may have: `max_noise`, or that of everybody at the caps if it is more.

        No plan has less than the latter, so there always is one that meets the limit.
        """
        if self.max_noise == np.inf:
            return np.inf
        return max(self.max_noise, self.noise(self.rank_cap, np.ones(self.devices)))

    def noise(self, rank: ArrayLike, probability: ArrayLike) -> float:
        """Variance of a round's step over the mean square of the gradients, plus one.

        ``sum_n A_n / (x_n q_n)`` with the sketching ratio ``x_n = k_n / r``: what sampling and
        sketching multiply the second moments of the gradients by.

        Parameters
        ----------
        rank, probability : array_like, shape (N,)
            Ranks and sampling probabilities.

        Returns
        -------
        float
        """
        return float(np.sum(self.noise_shares(rank) / np.asarray(probability)))

    def noise_shares(self, rank: ArrayLike) -> FloatArray:
        """Noise of each device if it is in every round, ``A_n / x_n``.

        Parameters
        ----------
        rank : array_like, shape (..., N)
            Ranks k_n.

        Returns
        -------
        ndarray, shape (..., N)
        """
        return np.asarray(self.variance * self.rank / np.asarray(rank, dtype=np.float64))

    def takes_part(self, probability: ArrayLike) -> FloatArray:
        """Probability c_n q_n that a device is sampled and completes.

        Parameters
        ----------
        probability : array_like, shape (..., N)
            Sampling probabilities q_n.

        Returns
        -------
        ndarray, shape (..., N)
        """
        return np.asarray(np.asarray(probability) * self.completion, dtype=np.float64)

    def compute_s(self, rank: ArrayLike) -> FloatArray:
        """Compute time tau_n of each device at a rank.

        Parameters
        ----------
        rank : array_like, shape (..., N)
            Ranks k_n; real values are allowed.

        Returns
        -------
        ndarray, shape (..., N)
            Seconds.
        """
        return np.asarray(self.compute_base_s + np.asarray(rank) * self.compute_per_rank_s)

    def upload_bits(self, rank: ArrayLike, device: IntArray | None = None) -> FloatArray:
        """Upload u_n of each device at a rank.

        Parameters
        ----------
        rank : array_like, shape (..., N)
            Ranks k_n; real values are allowed.
        device : ndarray of int, shape (N,), optional
            Whose ranks they are; if not given, those of all devices.

        Returns
        -------
        ndarray, shape (..., N)
            Bits.
        """
        fixed = self.fixed_bits if device is None else self.fixed_bits[device]
        return np.asarray(fixed + np.asarray(rank) * self.bits_per_rank, dtype=np.float64)

    def download_s(self, rank: ArrayLike) -> FloatArray:
        """Time that the server takes to send each device its sketch; zero where it broadcasts.

        Parameters
        ----------
        rank : array_like, shape (..., N)
            Ranks k_n; real values are allowed.

        Returns
        -------
        ndarray, shape (..., N)
            Seconds.
        """
        k = np.asarray(rank, dtype=np.float64)
        if self.download_bps is None:
            return np.zeros(k.shape)
        return np.asarray((self.fixed_down_bits + k * self.down_bits_per_rank) / self.download_bps)

    def transfer_s(self, rank: ArrayLike) -> FloatArray:
        """Time for which each device alone would keep the channel busy.

        Parameters
        ----------
        rank : array_like, shape (..., N)
            Ranks k_n; real values are allowed.

        Returns
        -------
        ndarray, shape (..., N)
            Seconds of its own download, if there is one, and of its upload over the whole band.
        """
        return solo_finish_time(
            self.download_s(rank), self.upload_bits(rank), self.link, self.bandwidth_hz
        )

    def ready_s(self, rank: ArrayLike, present: NDArray[np.bool_]) -> FloatArray:
        """When each member of a cohort is ready to send, the broadcast not counted.

        Parameters
        ----------
        rank : array_like, shape (N,)
            Ranks k_n.
        present : ndarray of bool, shape (..., N)
            Members of each cohort.

        Returns
        -------
        ndarray, shape (..., N)
            Seconds; without meaning for devices that are absent.
        """
        compute_s = self.compute_s(rank)
        if self.download_bps is None:
            return np.broadcast_to(compute_s, present.shape)
        download_s = np.where(present, self.download_s(rank), 0.0)
        return in_turn(download_s, self.cell) + compute_s

    def rounds_of(self, rank: ArrayLike, probability: ArrayLike) -> float:
        """Rounds R(q, k) that a plan needs.

        Parameters
        ----------
        rank, probability : array_like, shape (N,)
            Ranks and sampling probabilities.

        Returns
        -------
        float
        """
        ratio = np.asarray(rank) / self.rank
        return float(self.rounds.rounds(self.weight, self.variance, ratio, probability))


def in_turn(seconds: ArrayLike, cell: ArrayLike) -> FloatArray:
    """When each device's download ends if every cell serves its members in the order of devices.

    Parameters
    ----------
    seconds : array_like, shape (..., N)
        Duration of each download; zero for a device that has none.
    cell : array_like of int, shape (N,)
        Cells of the devices.

    Returns
    -------
    ndarray, shape (..., N)
        Seconds.
    """
    lasts = np.asarray(seconds, dtype=np.float64)
    number = np.asarray(cell)
    end_s = np.empty_like(lasts)
    for one in np.unique(number):
        members = np.flatnonzero(number == one)
        end_s[..., members] = np.cumsum(lasts[..., members], axis=-1)
    return end_s


def _device_array(name: str, value: ArrayLike) -> FloatArray:
    array = np.array(value, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} has shape {array.shape}: give one number per device")
    bad = ~((np.isfinite(array) | (name == "energy_limit_j")) & (array >= 0))
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(f"{name} of device {index} is {array[index]}: give zero or more")
    array.setflags(write=False)
    return array
