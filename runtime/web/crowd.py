"""Decides which connections stay open when there are too many.

A connection is a stranger until it has sent a whole request that the `Guard` allows; then it is a
viewer. Strangers and viewers have places of their own, so no crowd of strangers displaces a viewer.
Where places run out, the address that holds most of them loses its oldest.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

VIEWERS_MAX: Final = 24
STRANGERS_MAX: Final = 128
STRANGERS_OF_ADDRESS_MAX: Final = 64

ConnectionT = TypeVar("ConnectionT", bound=Hashable)


class Crowd(Generic[ConnectionT]):
    """The open connections, each with its address. Whoever is returned must be closed."""

    def __init__(self) -> None:
        self._strangers: dict[str, OrderedDict[ConnectionT, None]] = {}
        self._viewers: OrderedDict[ConnectionT, str] = OrderedDict()  # least recently used first

    def come(self, connection: ConnectionT, address: str) -> ConnectionT | None:
        """Add a stranger. Returns the one that loses its place, None if there is room."""
        group = self._strangers.setdefault(address, OrderedDict())
        group[connection] = None
        if len(group) <= STRANGERS_OF_ADDRESS_MAX and self.strangers <= STRANGERS_MAX:
            return None
        # Only a crowd of addresses costs this search.
        full = len(group) > STRANGERS_OF_ADDRESS_MAX
        most = address if full else max(self._strangers, key=lambda a: len(self._strangers[a]))
        oldest = next(iter(self._strangers[most]))
        self.leave(oldest, most)
        return oldest

    def become_viewer(self, connection: ConnectionT, address: str) -> ConnectionT | None:
        """Make a stranger a viewer. Returns the viewer that loses its place, None if none does."""
        self.leave(connection, address)
        self._viewers[connection] = address
        if len(self._viewers) <= VIEWERS_MAX:
            return None
        counts = Counter(self._viewers.values())
        most = max(counts.values())
        oldest = next(each for each, of in self._viewers.items() if counts[of] == most)
        del self._viewers[oldest]
        return oldest

    def used(self, connection: ConnectionT) -> None:
        """Note that a viewer sent a request."""
        if connection in self._viewers:
            self._viewers.move_to_end(connection)

    def leave(self, connection: ConnectionT, address: str) -> None:
        """Remove a connection, if it is still there."""
        self._viewers.pop(connection, None)
        if (group := self._strangers.get(address)) is not None:
            group.pop(connection, None)
            if not group:
                del self._strangers[address]

    @property
    def viewers(self) -> int:
        """Number of viewers."""
        return len(self._viewers)

    @property
    def strangers(self) -> int:
        """Number of strangers."""
        return sum(map(len, self._strangers.values()))
