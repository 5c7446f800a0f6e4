"""Uplinks of N devices: the rate that bandwidth buys, and the bandwidth that a rate needs.

The models share one interface, `Link`; every one is concave in the bandwidth:

=================== ============================================ =====================
model               rate of b hertz                              limit, b -> inf
=================== ============================================ =====================
LinearLink          e b                                          none
PowerLimitedLink    b log2(1 + a/b)                              a / ln 2
ErgodicRayleighLink mean over h ~ exp(1) of b log2(1 + a h/b)    a / ln 2
CappedLink          min(e b, that of another link)               the other link's
FadedLink           a psi(b/a), psi from a table                 a psi(inf)
=================== ============================================ =====================

`make_link` picks the simplest that an efficiency and a fading ask for. A limit is reached only as
b -> inf, except under link adaptation: below the lowest threshold nothing can be sent, so more
than a certain band is of no use, and the limit is the rate over that band. `join` puts groups of
devices together; `linear_efficiency` and `linear_power` tell whose link is linear over a band.
"""

from wireless.link.base import LinearLink, Link
from wireless.link.choice import make_link
from wireless.link.faded import CappedLink, FadedLink
from wireless.link.join import join
from wireless.link.linear import linear_efficiency, linear_power, straightened
from wireless.link.shannon import ErgodicRayleighLink, PowerLimitedLink

__all__ = [
    "CappedLink",
    "ErgodicRayleighLink",
    "FadedLink",
    "LinearLink",
    "Link",
    "PowerLimitedLink",
    "join",
    "linear_efficiency",
    "linear_power",
    "make_link",
    "straightened",
]
