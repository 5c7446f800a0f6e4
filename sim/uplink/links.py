"""The links of whoever is active, from the batches in which they were sent out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from wireless.link import Link, join


class ActiveLinks:
    """Links of the active transfers, in their order.

    As long as all are of one batch its links are chosen from; a second batch makes it a joined
    copy.
    """

    def __init__(self) -> None:
        self._source: Link | None = None
        self._index = np.zeros(0, dtype=np.intp)

    def __len__(self) -> int:
        """Number of active transfers."""
        return len(self._index)

    def append(self, members: Sequence[tuple[Link, int]]) -> None:
        """Add transfers at the end, each by its batch's links and its number there."""
        batches = [
            (batch[0][0], np.array([index for _, index in batch], dtype=np.intp))
            for _, batch in (
                (key, list(group)) for key, group in groupby(members, lambda m: id(m[0]))
            )
        ]
        for link, index in batches:
            if not len(self):
                self._source, self._index = link, index
            elif link is self._source:
                self._index = np.append(self._index, index)
            else:
                self._source = join([self.links, link.take(index)])
                self._index = np.arange(len(self._source))

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Let go of those who are not in the mask."""
        self._index = self._index[mask]

    def replace(self, places: NDArray[np.intp], link: Link) -> None:
        """Give new links to the transfers at these places."""
        index = np.arange(len(self))
        index[places] = len(self) + np.arange(len(places))
        self._source, self._index = join([self.links, link]), index

    @property
    def links(self) -> Link:
        """The links, in order."""
        assert self._source is not None
        return self._source.take(self._index)
