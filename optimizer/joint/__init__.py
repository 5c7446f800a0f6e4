"""Joint choice of ranks and sampling probabilities.

The objective ``R(q, k) * (T_oh + E[T(q, k)])`` is, along one device, a product of
``alpha + beta / q`` and ``gamma + delta q``: the best q of each rank has a closed form. The search
asks all devices at once for that response (`response`), goes as far towards it as the objective
falls (`descend`), from starts in all basins (`starts`; for large fleets found on a crowd of kinds,
`crowd`), on estimates of the round time from coarse to fine (`stages`); a deadline has a price
(`deadline`). Source: own derivation.
"""

from optimizer.joint.bounds import raise_to_bounds
from optimizer.joint.descend import Reached
from optimizer.joint.stages import search

__all__ = ["Reached", "raise_to_bounds", "search"]
