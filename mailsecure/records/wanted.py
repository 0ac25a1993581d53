"""What a search looks for, as conditions on messages, refusals and sessions.

Each of :class:`Wanted`'s methods returns the table, the conditions of which an index may know
something (each a list of places, of which any will do), and those which only a look at each
row can tell.  None: nothing there can match.  :mod:`.searching` finds the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Table, and_, exists, func, or_, select

from .api import Search, TooWide
from .database import Database
from .networks import Network, holds, network_of, part_of
from .places import Exact, Greeted, Named, Place, Recipients, Subject
from .rows import message_key, parse_session
from .schema import attempt, message, name, recipient, refusal, session
from .spelling import spellings

__all__ = ["MOST_CLIENTS", "MOST_NAMES", "Looked", "Wanted"]

#: Names that are looked up; clients that are looked at for a network.
MOST_NAMES = 20_000
MOST_CLIENTS = 200_000

#: A table, places of each condition, and other conditions.
Looked = tuple[Table, list[list[Place]], list[ColumnElement[bool]]]


class Wanted:
    """``search``, to be looked for on ``connection``."""

    def __init__(self, database: Database, connection: Connection, search: Search) -> None:
        self._database = database
        self._connection = connection
        self._search = search
        self._known: dict[str, Sequence[int] | None] = {}
        self._network = network_of(search.client)

    def messages(self) -> Looked | None:
        """Return the conditions on messages."""
        search, columns = self._search, message.c
        if search.action == "refused" or search.stage:
            return None
        places = self._places(message)
        if search.sender:
            places.append(self._senders(search.sender))
        if search.recipient:
            places.append([self._recipients(search.recipient)])
        if search.subject:
            places.append([Subject(self._database, self._connection, search.subject)])
        if search.text:
            places.append(self._anything(search.text))
        # The index of actions is without the usual one.
        if search.action not in ("", "accept"):
            unusual = and_(columns.action == search.action, columns.action != "accept")
            places.append([Exact(unusual, columns.id)])
        more: list[ColumnElement[bool]] = []
        if search.action == "accept":
            more.append(columns.action == search.action)
        if search.symbol:
            more.append(self._symbol(columns.details))
        if search.reply:
            of_hop = exists().where(attempt.c.message == columns.id, self._said(attempt.c.reply))
            more.append(or_(self._said(columns.reply), of_hop))
        return message, places, more

    def refusals(self) -> Looked | None:
        """Return the conditions on refused connections and commands."""
        search, columns = self._search, refusal.c
        if search.action not in ("", "refused") or search.subject:
            return None
        places = self._places(refusal)
        if search.sender:
            places.append([self._named(columns.sender, columns.id, search.sender)])
        if search.recipient:
            places.append([self._named(columns.recipient, columns.id, search.recipient)])
        if search.text:
            named = (columns.sender, columns.recipient, columns.client)
            anywhere: list[Place] = [self._named(each, columns.id, search.text) for each in named]
            if session_number := parse_session(search.text.upper()):
                anywhere.append(Exact(columns.session == session_number, columns.id))
            places.append(anywhere)
        more: list[ColumnElement[bool]] = []
        if search.stage:
            more.append(func.lower(columns.stage) == search.stage)
        if search.symbol:
            more.append(self._symbol(columns.symbols))
        if search.reply:
            more.append(or_(self._said(columns.reply), self._said(columns.reason)))
        return refusal, places, more

    def sessions(self) -> Looked | None:
        """Return those on sessions in which nothing happened, where a client is asked for."""
        search = self._search
        others = [search.sender, search.recipient, search.subject, search.action]
        others += [search.symbol, search.reply, search.stage]
        if any(others) or not (search.client or search.helo or search.text or search.id):
            return None
        idle = and_(session.c.messages == 0, session.c.refused == 0)
        id, places = session.c.id, list[list[Place]]()
        if search.client:
            names = self._clients(search.client)
            places.append([Named(self._database, session.c.client, id, search.client, names, idle)])
        if search.text:
            names = self._names(search.text)
            places.append([Named(self._database, session.c.client, id, search.text, names, idle)])
        if search.helo:
            places.append([self._greeted(id, id)])
        if search.id:
            places.append([Exact(self._id_range(id), id)])
        return session, places, [idle]

    # -- places

    def _places(self, table: Table) -> list[list[Place]]:
        """Return those on id, client and HELO, which messages and refusals have alike."""
        search, columns = self._search, table.c
        places: list[list[Place]] = []
        if search.id:
            places.append(self._by_id(table, columns.session))
        if search.client:
            places.append([self._client(columns.client, columns.id)])
        if search.helo:
            places.append([self._greeted(columns.session, columns.id)])
        return places

    def _id_range(self, column: ColumnElement[int]) -> ColumnElement[bool]:
        first, last = self._search.id, self._search.last_id
        return column.between(first, last) if last else column == first

    def _by_id(self, table: Table, of_session: ColumnElement[int]) -> list[Place]:
        id = table.c.id
        places: list[Place] = [Exact(self._id_range(of_session), id)]
        if table is message:
            places.append(Exact(self._id_range(id), id))
        return places

    def _named(self, column: ColumnElement[int], key: ColumnElement[int], part: str) -> Named:
        return Named(self._database, column, key, part, self._names(part))

    def _client(self, column: ColumnElement[int], key: ColumnElement[int]) -> Named:
        part = self._search.client
        return Named(self._database, column, key, part, self._clients(part))

    def _greeted(self, link: ColumnElement[int], key: ColumnElement[int]) -> Greeted:
        part = self._search.helo
        return Greeted(self._database, link, key, part, self._names(part))

    def _senders(self, part: str) -> list[Place]:
        # A row without an author of its own has 0 there, as one without reverse-path has.
        columns = [message.c.sender] if part == "<>" else [message.c.sender, message.c.author]
        return [self._named(each, message.c.id, part) for each in columns]

    def _recipients(self, part: str) -> Place:
        key = recipient.c.message
        return Recipients(self._database, recipient.c.name, key, part, self._names(part))

    def _anything(self, text: str) -> list[Place]:
        places = self._senders(text)
        places.append(self._recipients(text))
        places.append(self._named(message.c.client, message.c.id, text))
        places.append(Subject(self._database, self._connection, text))
        if "@" in text:
            bare = text.strip().strip("<>")
            same = and_(
                message.c.message_key == message_key(text),
                self._database.contains(message.c.message_id, bare),
            )
            places.append(Exact(same, message.c.id))
        if number := parse_session(text.upper()):
            places.append(Exact(message.c.id == number, message.c.id))
            places.append(Exact(message.c.session == number, message.c.id))
        return places

    def _symbol(self, column: ColumnElement[str]) -> ColumnElement[bool]:
        """As it stands in the JSON; a check's name, in small letters, is no symbol's."""
        return self._database.includes(column, f'["{self._search.symbol.upper()}')

    def _said(self, column: ColumnElement[str]) -> ColumnElement[bool]:
        return self._database.contains(column, self._search.reply)

    # -- names

    def _names(self, part: str) -> Sequence[int] | None:
        """Return the ids of names with ``part``; None: too many to name them all."""
        if part == "<>":
            return (0,)
        if part not in self._known:
            ids: set[int] = set()
            for each in spellings(part):
                question = self._database.names(each, MOST_NAMES + 1)
                ids.update(self._connection.execute(question).scalars())
            self._known[part] = None if len(ids) > MOST_NAMES else sorted(ids)
        return self._known[part]

    def _clients(self, part: str) -> Sequence[int] | None:
        """Return the ids of clients with ``part``, or in that network."""
        if self._network is None:
            return self._names(part)
        if part not in self._known:
            self._known[part] = self._of_network(self._network)
        return self._known[part]

    def _of_network(self, network: Network) -> list[int]:
        some = self._database.names(part_of(network), MOST_CLIENTS + 1)
        wanted = select(name.c.id, name.c.text).where(name.c.id.in_(some))
        rows = self._connection.execute(wanted).all()
        if len(rows) > MOST_CLIENTS:
            raise TooWide(f"{network} has too many clients: name a smaller network")
        return [row.id for row in rows if holds(network, row.text)]
