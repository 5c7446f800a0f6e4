"""Networks whose devices are given by hand, and schedules that run without training."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from optimizer import Plan
from optimizer.problem import in_turn
from sim.channels import make_network
from sim.clock import Clock
from sim.dispatch import Batch
from sim.network import Member, Network
from sim.planning import make_plan
from sim.scenario import Scenario
from sim.schedules import SCHEDULES, Merge
from sim.steering import Steering
from sim.system import System, build_system
from sim.timeline import Interval, Spectrum
from sim.uplink import make_uplink
from tests.sim.uplinks import reservation
from wireless.link import Link
from wireless.spectrum import RULES, Rule, Whole

BAND_HZ = 1e6
DOWNLINK_HZ = 5e6


class Recorder:
    """A network and everything that it reported."""

    def __init__(
        self,
        rule: Rule = RULES["equal-finish"],
        whole: Whole | None = None,
        backoff_s: float = 0.5,
    ) -> None:
        self.intervals: list[Interval] = []
        self.spectrum: list[Spectrum] = []
        self.ended: list[Member] = []
        self.clock = Clock()
        self._rule, self._whole = rule, whole

        def uplink(*hooks: Callable[..., None]) -> object:
            return make_uplink(
                rule,
                whole,
                None,
                0.0,
                self.clock,
                BAND_HZ,
                *hooks,
                constant=True,
            )

        self.network = Network(
            self.clock,
            uplink,
            DOWNLINK_HZ,
            backoff_s,
            self.intervals.append,
            self.spectrum.append,
        )
        self.network.on_end = self.ended.append

    def take_part(self, part: Batch) -> list[Member]:
        """Send a batch out now, and let everybody end."""
        held = None
        if self._rule.reserves:
            held = np.zeros(len(part))
            for cell in np.unique(part.cell):
                places = np.flatnonzero(part.cell == cell)
                held[places] = reservation(
                    self._rule,
                    self._whole,
                    part.link.take(places),
                    part.bits[places],
                    (part.after_s + part.compute_s)[places],
                    BAND_HZ,
                )
        members = self.network.send_out(part, held)
        self.clock.run()
        self.network.finish()
        return members

    def rows(self, phase: str) -> list[Interval]:
        """Rows of devices in a phase, in order of device and time."""
        found = [row for row in self.intervals if row.phase == phase and row.device is not None]
        return sorted(found, key=lambda row: (row.device, row.start_s, row.end_s))


def batch(
    compute_s: Sequence[float],
    size: Sequence[int],
    link: Link,
    now_s: float = 0.0,
    cell: Sequence[int] | None = None,
    download_s: float = 0.0,
    fails_s: float = np.inf,
    leaves_s: float = np.inf,
    charge_j: float = np.inf,
    delivered: Sequence[Sequence[float]] | None = None,
) -> Batch:
    """Devices of 2 W that send with 1 W."""
    count = len(compute_s)
    cells = np.array(cell or [0] * count)
    every = np.arange(count)
    own = np.full(count, download_s)
    return Batch(
        round=1,
        device=every,
        rank=np.ones(count, dtype=np.int64),
        weight=np.ones(count),
        key=every,
        cell=cells,
        link=link,
        sent_s=now_s,
        heard_s=now_s,
        download_s=own,
        download_bytes=np.full(count, 500 if download_s else 0),
        download_bps=np.full(count, 4000 / download_s if download_s else 0.0),
        after_s=in_turn(own, cells),
        compute_s=np.array(compute_s),
        compute_w=np.full(count, 2.0),
        transmit_w=np.ones(count),
        bits=8.0 * np.array(size),
        fails_s=np.full(count, fails_s),
        leaves_s=np.full(count, leaves_s),
        charge_j=np.full(count, charge_j),
        delivered=np.ones((count, 1)) if delivered is None else np.array(delivered),
    )


class Simulated:
    """Merges of a schedule that runs without training, and what the network reported.

    Parameters
    ----------
    scenario
        What to simulate.
    count
        Number of merges after which it is ended, if it does not end by itself.
    plan
        The plan; the policy's own if not given.
    """

    def __init__(self, scenario: Scenario, count: int, plan: Plan | None = None) -> None:
        self.system: System = build_system(scenario)
        self.plan = plan or make_plan(self.system)
        self.merges: list[Merge] = []
        self.intervals: list[Interval] = []
        self.spectrum: list[Spectrum] = []
        network = make_network(self.system, self.intervals.append, self.spectrum.append)
        steering = Steering(self.system, self.plan)
        schedule = SCHEDULES[scenario.schedule.name]
        process = schedule(network, self.system, steering, partial(self._on_merge, count))
        network.clock.run(until=network.clock.process(process))
        network.finish()

    def _on_merge(self, count: int, merge: Merge) -> bool:
        self.merges.append(merge)
        return len(self.merges) < count and not merge.deserted

    def rows(self, phase: str) -> list[Interval]:
        """Rows of devices in a phase, in order of device and time."""
        found = [row for row in self.intervals if row.phase == phase and row.device is not None]
        return sorted(found, key=lambda row: (row.device, row.start_s, row.end_s))
