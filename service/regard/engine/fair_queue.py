"""The order in which the requests of several clients are served: in turns, by the work that they ask for."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from regard.engine.ticket import Ticket

FEW_ACCOUNTS = 64
"""So many are kept before it is worth a look which of them mean nothing any more."""


class _Place(NamedTuple):
    """Where a request stands. Those of one turn are served in the order in which they came."""

    turn_s: float
    number: int
    ticket: Ticket


@dataclass(slots=True)
class _Account:
    """One client: the turn of the next request that it sends, and those that wait, in order."""

    next_turn_s: float
    places: OrderedDict[Ticket, _Place] = field(default_factory=OrderedDict)
    refunds_s: dict[Ticket, float] = field(default_factory=dict)
    """By how much a request's turn is too late, and that of all behind it: the work before it that was dropped."""

    def refund(self, ticket: Ticket, work_s: float) -> None:
        """Owe so much to whatever waits behind a request."""
        waiting = iter(self.places)
        for one in waiting:
            if one is ticket:
                break
        if (following := next(waiting, None)) is not None:
            self.refunds_s[following] = self.refunds_s.get(following, 0.0) + work_s


class FairQueue:
    """Requests that wait, ordered so that every client is given as much work as any other.

    This is start-time fair queueing (Goyal, Vin and Cheng, Start-Time Fair Queueing, 1996). Virtual
    time is the work, in seconds, that each client in the queue has been given. A request's turn is
    the virtual time at which its client will have been given all that it asked for before; a client
    that comes new begins now, so that it has no claim to what it did not ask for. Unlike in the
    paper, virtual time goes on by the fair share of all that is served, whosever turn it was:
    however many new clients come, the time of those who wait comes too.

    Adding and removing a request takes a number of comparisons logarithmic in the queue's length.
    """

    def __init__(self) -> None:
        self._order: list[_Place] = []
        self._accounts: dict[str, _Account] = {}
        self._passed_over: OrderedDict[str, float] = OrderedDict()  # clients, by when they were last served
        self._virtual_s = 0.0
        self._most_accounts = FEW_ACCOUNTS
        self.work_s = 0.0
        """The work of all that waits, and below its rows."""
        self.rows = 0

    def __iter__(self) -> Iterator[Ticket]:
        """Go through the requests in the order of their turns."""
        return (place.ticket for place in self._order)

    def __reversed__(self) -> Iterator[Ticket]:
        return (place.ticket for place in reversed(self._order))

    def later_than(self, client: str) -> Iterator[Ticket]:
        """Go through the requests that would be served after one that the client sent now, the last first."""
        turn_s = self._turn_of(client)
        return (place.ticket for place in takewhile(lambda place: place.turn_s > turn_s, reversed(self._order)))

    def work_before(self, client: str) -> float:
        """Return about how much work would be served before a request that the client sent now.

        Until its turn, every client in the queue is given what virtual time goes on by.
        """
        return min(self.work_s, (self._turn_of(client) - self._virtual_s) * max(len(self._passed_over), 1))

    def passed_over_since(self, then: float) -> Ticket | None:
        """Return the next request of the client that has waited longest for one to be served, if since `then`."""
        client = next(iter(self._passed_over), None)
        if client is None or self._passed_over[client] > then:
            return None
        return next(iter(self._accounts[client].places))

    def add(self, ticket: Ticket, now: float) -> None:
        """Let a request wait from `now` on."""
        client, turn_s = ticket.request.client, self._turn_of(ticket.request.client)
        account = self._accounts.setdefault(client, _Account(turn_s))
        account.next_turn_s = turn_s + ticket.work_s
        account.places[ticket] = place = _Place(turn_s, ticket.number, ticket)
        insort(self._order, place)
        self._passed_over.setdefault(client, now)
        self.work_s += ticket.work_s
        self.rows += ticket.width

    def serve(self, ticket: Ticket, now: float) -> None:
        """Take out a request that is served now."""
        share_s, account = ticket.work_s / len(self._passed_over), self._accounts[ticket.request.client]
        turn_s = account.places[ticket].turn_s - account.refunds_s.get(ticket, 0.0)
        self._virtual_s = max(self._virtual_s + share_s, turn_s)
        self._remove(ticket)
        self._wait_anew(ticket.request.client, now)

    def drop(self, ticket: Ticket) -> None:
        """Take out a request that is not served; its client is not charged for it, and its later ones come forward."""
        account = self._accounts[ticket.request.client]
        account.next_turn_s -= ticket.work_s
        account.refund(ticket, ticket.work_s)
        self._remove(ticket)

    def promote(self, ticket: Ticket, now: float) -> None:
        """Take out a request that goes on in another queue."""
        self.drop(ticket)
        self._wait_anew(ticket.request.client, now)

    def _turn_of(self, client: str) -> float:
        account = self._accounts.get(client)
        return self._virtual_s if account is None else max(self._virtual_s, account.next_turn_s)

    def _wait_anew(self, client: str, now: float) -> None:
        """Count a client's wait from `now` on, if more of its requests wait."""
        if client in self._passed_over:
            self._passed_over[client] = now
            self._passed_over.move_to_end(client)

    def _remove(self, ticket: Ticket) -> None:
        client = ticket.request.client
        account = self._accounts[client]
        if owed_s := account.refunds_s.pop(ticket, 0.0):
            account.refund(ticket, owed_s)
        del self._order[bisect_left(self._order, account.places.pop(ticket))]
        if account.places:
            self._come_forward(account)
        else:
            del self._passed_over[client]
        self.work_s -= ticket.work_s
        self.rows -= ticket.width
        if not self._order:
            self._accounts.clear()
            self._virtual_s = self.work_s = 0.0
        elif len(self._accounts) > self._most_accounts:
            self._close_accounts()

    def _come_forward(self, account: _Account) -> None:
        """Give a client's first request the turn that it has without those dropped before it.

        Those behind it come forward as they become the first: until then they wait for it anyway. A turn that
        has passed is now, and what that takes from the refund is charged to what the client sends next.
        """
        ticket, place = next(iter(account.places.items()))
        owed_s = account.refunds_s.pop(ticket, 0.0)
        if not owed_s:
            return
        forward = place._replace(turn_s=min(place.turn_s, max(place.turn_s - owed_s, self._virtual_s)))
        del self._order[bisect_left(self._order, place)]
        insort(self._order, forward)
        account.places[ticket] = forward
        moved_s = place.turn_s - forward.turn_s
        account.next_turn_s += owed_s - moved_s
        account.refund(ticket, moved_s)

    def _close_accounts(self) -> None:
        """Forget the clients that are as good as new ones."""
        self._accounts = {
            client: account
            for client, account in self._accounts.items()
            if account.places or account.next_turn_s > self._virtual_s
        }
        self._most_accounts = max(FEW_ACCOUNTS, 2 * len(self._accounts))
