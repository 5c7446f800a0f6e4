"""The uplink that is chosen for a rule and its links."""

import numpy as np
import pytest

from sim.uplink import DividedUplink, Uplink, make_uplink
from sim.uplink.reserved import ReservedUplink
from sim.uplink.serial import SerialUplink
from sim.uplink.shared import SharedUplink
from tests.sim.uplinks import BLOCKS, Cell, Make
from wireless.link import CappedLink, LinearLink, Link, PowerLimitedLink
from wireless.power_control import PowerControlledLink
from wireless.spectrum import RULES

LINEAR = LinearLink(np.array([0.5, 2.0]))
CURVED = PowerLimitedLink(np.array([1e6, 1e7]))
KNEE_INSIDE = PowerControlledLink(LINEAR, np.array([1e5, 1e9]))


@pytest.mark.parametrize(
    ("name", "link", "changes", "kind"),
    [
        ("equal-finish", CURVED, {}, ReservedUplink),
        ("equal-finish", CURVED, {"whole": BLOCKS, "reallocation_s": 1.0}, ReservedUplink),
        ("equal-finish", CURVED, {"constant": False}, DividedUplink),
        ("time-division", CURVED, {"whole": BLOCKS}, SerialUplink),
        ("time-division", CURVED, {"reallocation_s": 1.0}, DividedUplink),
        ("equal-split", LINEAR, {}, SharedUplink),
        ("proportional", CappedLink(CURVED, 0.1), {}, SharedUplink),
        ("work-conserving", PowerControlledLink(LINEAR, np.full(2, 1e9)), {}, SharedUplink),
        ("equal-split", CURVED, {}, DividedUplink),
        ("equal-split", KNEE_INSIDE, {}, DividedUplink),
        ("equal-split", None, {}, DividedUplink),
        ("equal-split", LINEAR, {"whole": BLOCKS}, DividedUplink),
        ("equal-split", LINEAR, {"reallocation_s": 1.0}, DividedUplink),
        ("equal-split", LINEAR, {"constant": False}, DividedUplink),
    ],
)
def test_the_quickest_that_is_right_is_made(
    name: str, link: Link | None, changes: dict, kind: type
) -> None:
    given = {"whole": None, "reallocation_s": 0.0, "constant": True}
    given |= changes
    cell = Cell(Make(lambda *rest: _made(name, link, given, rest), RULES[name]))
    assert type(cell.uplink) is kind


def _made(name: str, link: Link | None, given: dict, rest: tuple) -> Uplink:
    whole, reallocation_s, constant = given.values()
    return make_uplink(
        RULES[name],
        whole,
        link,
        reallocation_s,
        *rest,
        constant=constant,
    )
