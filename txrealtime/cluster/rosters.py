"""
The rosters of several servers, kept alike: see :mod:`txrealtime.socketio.presence`.

Each server owns the entries of its own sockets, and numbers its changes.  A change names the number of
the one before in the same namespace, so a peer server notices when it has missed one, and asks for all
entries.  It also asks when it meets a server, when its link is ready again, and when the numbers differ that
each server tells with its announcements.  When a server has gone, its entries are removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, succeed

from txrealtime.cluster.conversation import Conversation
from txrealtime.cluster.dialects.interfaces import Dialect
from txrealtime.cluster.dialects.messages import Roll, RosterNumbers, RosterPage, Track
from txrealtime.errors import BusError
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.presence import Entry, Roster

__all__ = ["Rosters", "cannotCarry"]

_PAGE: Final = 250_000
"""Characters of entries in one message: 1 MB at most, where a link carries 2 MB."""

_TOLD: Final = 100
"""Namespaces whose numbers go with one announcement, in turn."""

_MAX_LATER: Final = 10_000
"""Changes of one server that wait for its entries."""


@dataclass(slots=True)
class _Awaited:
    """
    The entries that a peer server was asked for, as far as they have come.

    :ivar pages: the number of messages that have come.
    :ivar later: changes that have come meanwhile.
    :ivar isWaitedFor: true while :meth:`Rosters.whenKnown` waits for them.
    """

    entries: list[Entry] = field(default_factory=list)
    pages: int = 0
    later: list[Track] = field(default_factory=list)
    isWaitedFor: bool = True


@dataclass(slots=True)
class _Exchange:
    """
    The exchange of one namespace's entries.

    :ivar sent: the number of this server's last change.
    :ivar heard: by the uid of a peer server, the number of its last change that the roster has.
    :ivar awaited: the peer servers that were asked for their entries, by uid.
    :ivar waiting: those who wait until nobody is awaited.
    """

    roster: Roster
    sent: int = 0
    heard: dict[str, int] = field(default_factory=dict)
    awaited: dict[str, _Awaited] = field(default_factory=dict)
    waiting: list[Deferred[None]] = field(default_factory=list)


class Rosters:
    """The rosters of this server's namespaces, among those of the peer servers."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._exchanges: dict[str, _Exchange] = {}
        # Of all namespaces: one that is made anew at a path must not repeat a number.
        self._number = 0
        # Namespaces that were unmounted since the last announcement.
        self._ended: set[str] = set()
        conversation.watch(self)
        conversation.receive(Track, self.trackReceived)
        conversation.receive(Roll, self.rollReceived)
        conversation.receive(RosterPage, self.pageReceived)
        conversation.receive(RosterNumbers, self.numbersReceived)

    # -- this server's namespaces --------------------------------------------------------

    def used(self, namespace: Namespace) -> None:
        """
        Exchange the entries of a namespace from now on.

        :raises BusError: if the dialect has no form for them.
        """
        dialect = self._conversation.dialect
        if not dialect.hasPresence:
            raise BusError(cannotCarry(dialect))
        if namespace.path not in self._exchanges:
            self._exchanges[namespace.path] = _Exchange(namespace._roster)
            self._askAll([namespace.path])

    def unmounted(self, namespace: Namespace) -> None:
        """Called when a namespace was taken off this server."""
        if self._exchanges.pop(namespace.path, None) is not None:
            self._ended.add(namespace.path)

    def changed(self, namespace: Namespace, entry: Entry, isPresent: bool) -> None:
        """Tell the peer servers that one of this server's entries has come, has changed, or has gone."""
        exchange = self._exchanges[namespace.path]
        self._number += 1
        before, exchange.sent = exchange.sent, self._number
        uid = self._conversation.uid
        self._conversation.say(Track(namespace.path, uid, before, exchange.sent, entry, isPresent))

    def whenKnown(self, namespace: Namespace) -> Deferred[None]:
        """See :meth:`txrealtime.socketio.peers.Peers.whenPresenceKnown`."""
        exchange = self._exchanges[namespace.path]
        if self._isKnown(exchange):
            return succeed(None)
        waiting: Deferred[None] = Deferred(partial(self._givenUp, exchange))
        exchange.waiting.append(waiting)
        return waiting

    def _isKnown(self, exchange: _Exchange) -> bool:
        """Return true if nothing more is to come, or the link is not ready."""
        conversation = self._conversation
        awaits = any(awaited.isWaitedFor for awaited in exchange.awaited.values())
        return not conversation.isReady or not (conversation.isSettling or awaits)

    def _givenUp(self, exchange: _Exchange, waiting: Deferred[None]) -> None:
        exchange.waiting.remove(waiting)
        for awaited in exchange.awaited.values():
            awaited.isWaitedFor = False

    def _check(self, exchanges: Iterable[_Exchange]) -> None:
        """End the waits for entries that are known now."""
        for exchange in list(exchanges):
            while exchange.waiting and self._isKnown(exchange):
                exchange.waiting.pop(0).callback(None)

    # -- the peer servers, for the conversation --------------------------------------------

    def met(self, uid: str) -> None:
        """Called when a peer server has announced itself for the first time."""
        self._ask(uid, self._exchanges)

    def lost(self, uid: str) -> None:
        """Called when a peer server has gone."""
        for exchange in list(self._exchanges.values()):
            exchange.heard.pop(uid, None)
            exchange.awaited.pop(uid, None)
            exchange.roster.replace(uid, ())
        self._check(self._exchanges.values())

    def linkChanged(self, isReady: bool) -> None:
        """Called when the link is ready, or is so no longer."""
        if isReady:
            self._askAll(self._exchanges)
        self._check(self._exchanges.values())

    def settled(self) -> None:
        """Called when the peer servers have had the time to announce themselves."""
        self._check(self._exchanges.values())

    def announced(self) -> None:
        """Called when this server has announced itself: tell the numbers of the last changes."""
        numbers = dict.fromkeys(self._ended, 0)
        self._ended.clear()
        for path in list(self._exchanges)[:_TOLD]:
            exchange = self._exchanges[path] = self._exchanges.pop(path)  # to the end: the others are next
            numbers[path] = exchange.sent
        if numbers:
            self._conversation.say(RosterNumbers(self._conversation.uid, numbers))

    def _askAll(self, paths: Iterable[str]) -> None:
        for uid in self._conversation.servers:
            self._ask(uid, paths)

    def _ask(self, uid: str, paths: Iterable[str]) -> None:
        """Ask a peer server for its entries in some namespaces.  Their changes wait until these have come."""
        asked = list(paths)
        for path in asked:
            awaited = self._exchanges[path].awaited.setdefault(uid, _Awaited())
            awaited.pages = 0
            awaited.entries.clear()
        if asked:
            self._conversation.say(Roll(asked, self._conversation.uid, uid))

    def _find(self, path: str, uid: str) -> _Exchange | None:
        """
        Find the exchange that a message belongs to.

        A server that is not known is asked as soon as it has announced itself: entries without a lease would
        stay for ever.
        """
        return self._exchanges.get(path) if uid in self._conversation.servers else None

    # -- messages ----------------------------------------------------------------------------

    def trackReceived(self, track: Track) -> None:
        """Called with a change of a peer server."""
        exchange = self._find(track.path, track.sender)
        if exchange is None:
            return
        awaited = exchange.awaited.get(track.sender)
        if awaited is None:
            self._follow(exchange, track)
        elif len(awaited.later) < _MAX_LATER:
            awaited.later.append(track)

    def _follow(self, exchange: _Exchange, track: Track) -> None:
        """Make a change, unless the roster has it already.  If one before is missing, ask for all entries."""
        heard = exchange.heard.get(track.sender, 0)
        if track.before == heard:
            exchange.heard[track.sender] = track.number
            if track.isPresent:
                exchange.roster.put(track.sender, track.entry)
            else:
                exchange.roster.remove(track.sender, track.entry.room, track.entry.id)
        elif track.number > heard:
            self._ask(track.sender, [track.path])

    def rollReceived(self, roll: Roll) -> None:
        """Called when a peer server asks for this server's entries."""
        for path in roll.paths:
            exchange = self._exchanges.get(path)
            pages = _pages([] if exchange is None else exchange.roster.own)
            number = 0 if exchange is None else exchange.sent
            for page, entries in enumerate(pages):
                more = page + 1 < len(pages)
                uid = self._conversation.uid
                self._conversation.say(RosterPage(path, uid, roll.sender, number, page, more, entries))

    def pageReceived(self, page: RosterPage) -> None:
        """Called with the entries of a peer server that was asked, or some of them."""
        exchange = self._find(page.path, page.sender)
        awaited = None if exchange is None else exchange.awaited.get(page.sender)
        if exchange is None or awaited is None:
            return
        if page.page == 0:
            awaited.entries.clear()
        elif page.page != awaited.pages:
            return  # one is lost: the numbers of the next announcement will differ, or be awaited
        awaited.pages = page.page + 1
        awaited.entries += page.entries
        if page.more:
            return
        del exchange.awaited[page.sender]
        exchange.heard[page.sender] = page.number
        exchange.roster.replace(page.sender, awaited.entries)
        for track in awaited.later:
            self.trackReceived(track)
        self._check([exchange])

    def numbersReceived(self, numbers: RosterNumbers) -> None:
        """Called with the numbers of a peer server's last changes."""
        for path, number in numbers.numbers.items():
            exchange = self._find(path, numbers.sender)
            if exchange is not None and (
                numbers.sender in exchange.awaited or exchange.heard.get(numbers.sender, 0) != number
            ):
                self._ask(numbers.sender, [path])


def cannotCarry(dialect: Dialect) -> str:
    """Return the text of the error for a dialect without presence."""
    return (
        f"the dialect {dialect.name} cannot carry presence, because its servers do not announce themselves: "
        "use the native dialect, or fetch() in place of presence()"
    )


def _pages(entries: list[Entry]) -> list[list[Entry]]:
    """Divide entries into messages; for none, one that is empty."""
    pages: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        size += sum(map(len, entry[:4]))
        if size > _PAGE and pages[-1]:
            pages.append([])
            size = sum(map(len, entry[:4]))
        pages[-1].append(entry)
    return pages
