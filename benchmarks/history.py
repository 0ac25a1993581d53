"""How fast the history is found again among millions, and what keeping it costs a message.

``python -m benchmarks.history [--rows 1000000] [--database FILE|postgresql://…]`` makes that
many messages (each with its session, a recipient and an attempt; a tenth as many refusals)
with the database's own arithmetic, which is quicker than telling them, builds the indexes,
and prints how long typical searches take: once from cold caches of ours (a new connection; the
system's cache of the file is as it is) and once more.

``--cost`` measures telling: how much longer a thread that works as the reactor does (a little
Python, a system call, and again) takes for the same work while so many messages a second are
told and written beside it.  That is what the history costs the mail; CPU of the writer's
thread that runs without the interpreter's lock is told apart.

The mail is made up: 20,000 domains, senders and clients of which few are frequent and most
are rare, 5,000 recipients of our own domain, subjects of three to eight of 20,000 words.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from mailsecure.records.api import Search
from mailsecure.records.database import Database
from mailsecure.records.postgresql import Postgresql
from mailsecure.records.reading import Reader
from mailsecure.records.rows import message_key
from mailsecure.records.sqlite import Sqlite
from mailsecure.records.store import Store
from mailsecure.records.values import (
    AttemptEvent,
    Event,
    FoundSymbol,
    MessageEvent,
    SessionEvent,
)

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: The last message's time, and how many seconds they are spread over.
END, SPAN = 1_795_000_000, 90 * 86400
DOMAINS, SENDERS, RECIPIENTS, CLIENTS, WORDS = 20_000, 400_000, 5_000, 200_000, 20_000
GREETINGS = 100_000
LUMP = 100_000
ROUNDS = 7


def id_name(number: int) -> str:
    """Return the 13 characters of an id."""
    return "".join(ALPHABET[number >> shift & 31] for shift in range(60, -1, -5))


def made_up_words(chance: random.Random, count: int) -> list[str]:
    """Return pronounceable words, each once."""
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = range(chance.randint(1, 4))
        words[
            "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in syllables)
            + chance.choice(["", "n", "r", "s", "t"])
        ] = None
    return list(words)


class Maker:
    """Fills a database with statements that it can do by itself."""

    def __init__(self, connection: Connection, rows: int) -> None:
        self._connection = connection
        self._rows = rows
        self._lite = connection.dialect.name == "sqlite"
        self._saved: list[str] = []

    def make(self) -> None:
        """Make everything."""
        if not self._lite:
            self._run("SET statement_timeout = 0")
        self._drop_indexes()
        self._tell("names", self._names)
        self._tell("rows", self._fill)
        self._tell("indexes", self._restore)

    @staticmethod
    def _tell(what: str, work: Callable[[], None]) -> None:
        began = time.monotonic()
        work()
        print(f"  made {what} in {time.monotonic() - began:.0f} s", flush=True)

    def _run(self, statement: str, **values: Any) -> None:
        for key, value in values.items():
            statement = statement.replace(f":{key}", str(value))
        with self._connection.begin():
            self._connection.exec_driver_sql(
                statement.replace("%", "%%" if not self._lite else "%")
            )

    def _drop_indexes(self) -> None:
        if self._lite:
            kinds = "type = 'index' AND sql IS NOT NULL OR type = 'trigger'"
            question = f"SELECT type, name, sql FROM sqlite_master WHERE ({kinds})"
        else:
            question = (
                "SELECT 'index', indexname, indexdef FROM pg_indexes"
                " WHERE schemaname = current_schema() AND tablename <> 'records_version'"
                " AND indexname NOT LIKE '%%_pkey' AND indexname NOT LIKE '%%_key'"
                " OR indexname = 'message_key'"
            )
        with self._connection.begin():
            found = self._connection.exec_driver_sql(question).fetchall()
        for kind, name, sql in found:
            self._saved.append(sql)
            self._run(f"DROP {kind} {name}")

    def _restore(self) -> None:
        if self._lite:
            self._run("INSERT INTO name_text (rowid, text) SELECT id, text FROM name")
            self._run("INSERT INTO subject_row (message) SELECT id FROM message ORDER BY id")
            for at in range(0, self._rows, LUMP):
                self._run(
                    "INSERT INTO subject_text (rowid, subject) SELECT s.n, m.subject"
                    " FROM subject_row s JOIN message m ON m.id = s.message"
                    " WHERE s.n > :low AND s.n <= :high",
                    low=at,
                    high=at + LUMP,
                )
        for sql in self._saved:
            self._run(sql)
        with self._connection.begin():
            self._connection.exec_driver_sql("ANALYZE")

    def _series(self, low: int, high: int) -> str:
        """Return a table ``g`` of the numbers ``x`` from low to below high."""
        if self._lite:
            return (
                f"(WITH RECURSIVE s(x) AS (SELECT {low} UNION ALL SELECT x + 1 FROM s"
                f" WHERE x + 1 < {high}) SELECT x FROM s) AS g"
            )
        return f"(SELECT x FROM generate_series({low}::bigint, {high - 1}) AS s(x)) AS g"

    def _hash(self, salt: int, below: int) -> str:
        """Return an expression with a number for x, evenly spread."""
        return f"(((x + {salt}) * 2654435761 % 4294967296 / 7 + {salt * 7919}) % {below})"

    def _skew(self, salt: int, below: int) -> str:
        """Likewise, small numbers much more often."""
        even, rest = self._hash(salt, 1000), self._hash(salt + 1, max(1, below // 1000))
        return f"({even} * {even} / 1000 * {even} / 1000 * {below} / 1000 + {rest})"

    def _names(self) -> None:
        chance = random.Random(1)
        words = made_up_words(chance, WORDS)
        real = "CREATE TEMP TABLE word (id INTEGER PRIMARY KEY, w TEXT)"
        self._run(real)
        for at in range(0, WORDS, 500):
            rows = ",".join(f"({at + n},'{w}')" for n, w in enumerate(words[at : at + 500]))
            self._run(f"INSERT INTO word VALUES {rows}")

        def word(salt: int, below: int = WORDS) -> str:
            return f"(SELECT w FROM word WHERE word.id = {self._hash(salt, below)})"

        domain = f"(SELECT w FROM word WHERE word.id = x % {DOMAINS})"
        number = "CAST(x AS TEXT)"
        base = 0
        for count, text in (
            (
                SENDERS,
                f"{word(3)} || '.' || {word(5)} || {number} || '@' || {domain} || '.example'",
            ),
            (RECIPIENTS, f"{word(11)} || {number} || '@example.com'"),
            (
                CLIENTS,
                "'198.' || CAST(x / 65536 % 256 AS TEXT) || '.' || CAST(x / 256 % 256 AS TEXT)"
                f" || '.' || CAST(x % 256 AS TEXT) || ' mail.' || {domain} || '.example'",
            ),
            (1, "'mx1'"),
            (1, "'10.0.0.5:25'"),
            (GREETINGS, f"'helo.' || {number} || '.' || {domain} || '.example'"),
        ):
            self._run(
                f"INSERT INTO name (id, text, day) SELECT {base} + x + 1, {text}, 20000"
                f" FROM {self._series(0, count)}"
            )
            base += count

    def _fill(self) -> None:
        gap = SPAN * 1_000_000 // self._rows
        first = (END - SPAN) * 1_000_000
        id = f"(({first} + x * {gap}) * 4096 + {self._hash(1, 4096)})"
        when = f"({first / 1e6} + x * {gap / 1e6})"
        sender = f"(1 + {self._skew(21, SENDERS)})"
        recipient = f"({SENDERS} + 1 + {self._skew(23, RECIPIENTS)})"
        client = f"({SENDERS + RECIPIENTS} + 1 + {self._skew(25, CLIENTS)})"
        node = SENDERS + RECIPIENTS + CLIENTS + 1
        words = " || ' ' || ".join(
            f"(SELECT w FROM word WHERE word.id = {self._hash(31 + n * 17, WORDS)})"
            for n in range(5)
        )
        percent = self._hash(41, 100)
        action = (
            f"CASE WHEN {percent} < 3 THEN 'quarantine' WHEN {percent} < 10 THEN 'reject'"
            " ELSE 'accept' END"
        )
        details = (
            '[[["SPF_PASS",-0.5,"198.51.100.7 may send for example.org","spf",""],'
            '["DKIM_VALID",-0.5,"d=example.org s=mail","dkim",""],'
            '["DMARC_PASS",-1.0,"p=reject","dmarc",""]],'
            '[["spf",0.004],["dkim",0.01]],[["tag",5],["quarantine",10],["reject",15]]]'
        )
        chance = self._hash(51, 1 << 30)
        message_id = f"'<' || CAST(x AS TEXT) || '.' || CAST({chance} AS TEXT) || '@mail.example>'"
        statements = (
            f"INSERT INTO message SELECT {id}, {id} - 4096, {when}, {node}, {client},"
            f" 'mail.example', {sender}, 0, {words} || ' ' || CAST(x AS TEXT), {message_id},"
            f" {self._hash(53, 1 << 32)}, 10240, 1.5, {action}, '250 2.0.0 Accepted', 0.01,"
            f" '{details}' FROM ",
            f"INSERT INTO recipient SELECT {id}, 0, {recipient}, {action} FROM ",
            f"INSERT INTO attempt SELECT {id}, {id} + 8192, {when}, {recipient}, {node + 1},"
            " 'sent', '2.0.0', '250 2.0.0 Ok: queued as 4XyZ', 0.4 FROM ",
            f"INSERT INTO session SELECT {id} - 4096, {when}, 0.6, {node}, {client}, 2525,"
            " '', 'TLSv1.3 TLS_AES_256_GCM_SHA384', '', 1, 0, 0, 'quit',"
            f" {node + 2} + {self._skew(25, GREETINGS)} FROM ",
        )
        refused = (
            f"INSERT INTO refusal SELECT {id} + 1, {id} - 8192, {when}, {node}, {client}, 'rcpt',"
            f" {sender}, {recipient}, '550 5.7.1 Refused', 'listed', '[]' FROM "
        )
        for low in range(0, self._rows, LUMP):
            high = min(low + LUMP, self._rows)
            for statement in statements:
                self._run(statement + self._series(low, high))
            self._run(refused + self._series(low, high) + " WHERE x % 10 = 0")
            if low and low % (LUMP * 10) == 0:
                print(f"    {low:,} of {self._rows:,}", flush=True)


def searches(connection: Connection, rows: int) -> Iterator[tuple[str, Search]]:
    """Yield typical searches, with what is in the database."""
    one = connection.exec_driver_sql

    def value(statement: str) -> Any:
        return one(statement).scalar()

    middle = value("SELECT max(id) FROM message") - (SPAN * 500_000 << 12)
    around = f"SELECT id FROM message WHERE id > {middle} ORDER BY id LIMIT 1"
    id = value(around)
    rare = value("SELECT text FROM name WHERE id = 390001")
    frequent = value(
        "SELECT n.text FROM (SELECT sender FROM message ORDER BY id LIMIT 20000) m"
        " JOIN name n ON n.id = m.sender GROUP BY n.text ORDER BY count(*) DESC LIMIT 1"
    )
    subject = value(f"SELECT subject FROM message WHERE id = {id}")
    client = value(f"SELECT n.text FROM message m JOIN name n ON n.id = m.client WHERE m.id = {id}")
    to = value(f"SELECT n.text FROM recipient r JOIN name n ON n.id = r.name WHERE message = {id}")
    sender = value(f"SELECT n.text FROM message m JOIN name n ON n.id = m.sender WHERE m.id = {id}")
    message_id = value(f"SELECT message_id FROM message WHERE id = {id}")
    # Its key is of a kind that the database cannot make up.
    one(f"UPDATE message SET message_key = {message_key(message_id)} WHERE id = {id}")
    moment = (id >> 12) / 1e6
    word = subject.split()[1]
    yield "a rare sender, whole", Search(sender=rare)
    yield "part of a rare sender", Search(sender=rare[3:-12])
    yield "a frequent sender, whole", Search(sender=frequent)
    yield "a sender and a recipient", Search(sender=sender, recipient=to)
    yield (
        "a sender, a recipient, one morning",
        Search(sender=sender[:12], recipient=to[:6], since=moment - 14400, until=moment + 14400),
    )
    yield "the whole own domain", Search(recipient="@example.com")
    yield "a top level domain", Search(sender=".example")
    yield "any text: part of an address", Search(text=rare[2:-10])
    yield "a word of subjects", Search(subject=word)
    yield "a phrase of one subject", Search(subject=" ".join(subject.split()[1:4]))
    yield "a number in a subject", Search(subject=subject.split()[-1])
    yield "two letters in a subject", Search(subject="ka")
    yield "a subject that is not there", Search(subject="xylophone quartet")
    yield "any text: a phrase", Search(text=" ".join(subject.split()[2:5]))
    yield "a client's address", Search(client=client.split()[0])
    yield "part of a client's address", Search(client=client.split()[0].rpartition(".")[0] + ".")
    yield "a client's network", Search(client=client.split()[0] + "/24")
    yield "a HELO, whole", Search(helo="helo.77777.")
    yield "a frequent HELO", Search(helo="helo.0.")
    yield "a HELO that is in all", Search(helo=".example")
    yield "a symbol, the newest", Search(symbol="DKIM_VALID")
    yield (
        "a symbol that is not there, a day",
        Search(symbol="EICAR", since=moment, until=moment + 86400),
    )
    yield (
        "a reply that is not there, a day",
        Search(reply="queued as 4711", since=moment, until=moment + 86400),
    )
    yield "a client's name", Search(client=client.split()[1])
    yield "an id", Search(id=id)
    yield "a Message-ID", Search(text=message_id)
    yield "an hour in the middle", Search(since=moment, until=moment + 3600)
    yield "quarantined, an hour", Search(action="quarantine", since=moment, until=moment + 3600)
    yield "refused, the newest", Search(action="refused")
    yield "the newest", Search()
    yield "an address that is not there", Search(text="nobody@nowhere.invalid")


def measure(database: Database, rows: int) -> None:
    """Print the time of each search."""
    engine = database.engine()
    with database.connect(engine) as connection, connection.begin():
        wanted = list(searches(connection, rows))
    print(f"  {'search':40} {'first':>9} {'again':>9}  found")
    for what, search in wanted:
        reader = Reader(database, engine)
        times = []
        for _ in range(2):
            began = time.monotonic()
            found = reader.trace(search)
            times.append(time.monotonic() - began)
        reader.close()
        note = " (unfinished)" if found and found[-1]["kind"] == "unfinished" else ""
        print(
            f"  {what:40} {times[0] * 1000:7.1f}ms {times[1] * 1000:7.1f}ms  {len(found)}{note}",
            flush=True,
        )


# -- what it costs


def mail(count: int) -> Iterator[list[Event]]:
    """Yield the events of messages as they come."""
    chance = random.Random(2)
    words = made_up_words(chance, 5000)
    tick = int(time.time() * 1_000_000)
    for _ in range(count):
        tick += 700
        id, session = tick << 12 | chance.getrandbits(12), id_name(tick - 300 << 12)
        domain = f"{words[int(5000 * chance.random() ** 3)]}.example"
        sender = f"{words[int(5000 * chance.random() ** 3)]}@{domain}"
        to = f"{words[int(500 * chance.random() ** 2)]}@example.com"
        client = f"198.51.{int(256 * chance.random() ** 2)}.{int(256 * chance.random() ** 2)}"
        host, when = f"mail.{domain}", tick / 1e6
        symbols = tuple(
            FoundSymbol(name, score, reason, check)
            for name, score, reason, check in (
                ("SPF_PASS", -0.5, f"{client} may send for {domain}", "spf"),
                ("DKIM_VALID", -0.5, f"d={domain} s=mail", "dkim"),
                ("DMARC_PASS", -1.0, "p=reject", "dmarc"),
                ("URIBL", 4.0, "multi.uribl.com lists it", "urls"),
            )
        )
        subject = " ".join(chance.choice(words) for _ in range(chance.randint(3, 8)))
        yield [
            MessageEvent(
                id, session, when, client, host, host, sender, sender, subject,
                f"<{chance.getrandbits(64):x}@{host}>", 10240, 2.0, "accept",
                f"250 2.0.0 Accepted as {id_name(id)}", 0.03, ((to, "accept"),), symbols,
                (("spf", 0.004), ("dkim", 0.01)),
                (("tag", 5.0), ("quarantine", 10.0), ("reject", 15.0)),
            ),
            SessionEvent(
                session, when, 0.5, client, 2525, host, host, "TLSv1.3", "", 1, 0, 0, "quit"
            ),
            AttemptEvent(id, when, to, "10.0.0.5:25", "sent", "2.0.0", "250 2.0.0 Ok", 0.4),
        ]  # fmt: skip


def spin(end: Callable[[], bool], descriptor: int) -> int:
    """Work as the reactor does, until ``end``; return how many rounds."""
    rounds = 0
    while not end():
        for _ in range(20):
            sum(range(400))
            os.pread(descriptor, 1, 0)
        rounds += 20
    return rounds


def cost(database: Database, messages: int, rate: int) -> None:
    """Print what telling costs a busy thread: rounds alone and beside the writer, in turn."""
    store = Store(database, database.engine(), "mx1", True)
    store.open()
    tick = int(time.time() * 1_000_000)
    told: list[tuple[int, Event]] = []
    for events in mail(messages * ROUNDS):
        for event in events:
            tick += 1
            told.append((tick << 12, event))
    size = min(1500, rate * 3 // 2)
    each = len(told) // ROUNDS
    descriptor = os.open("/etc/hostname", os.O_RDONLY)
    lost, used = [], []
    for turn in range(ROUNDS):
        until = time.monotonic() + 1.5
        began = time.monotonic()
        alone = spin(lambda: time.monotonic() > until, descriptor) / (time.monotonic() - began)  # noqa: B023
        part = told[turn * each : (turn + 1) * each]
        writing = Writing(store, [part[at : at + size] for at in range(0, each, size)], rate)
        began = time.monotonic()
        writing.start()
        beside = spin(writing.done.is_set, descriptor)
        took = time.monotonic() - began
        writing.join()
        lost.append((took - beside / alone) / messages * 1e6)
        used.append(writing.used / messages * 1e6)
    store.close()
    print(
        f"  at {rate} messages/s a busy thread loses {statistics.median(lost):.0f} us a message"
        f" ({min(lost):.0f} to {max(lost):.0f}), {statistics.median(lost) * rate / 1e4:.1f} % of"
        f" its time; the writer's CPU is {statistics.median(used):.0f} us a message"
    )


class Writing(threading.Thread):
    """Writes batches at a rate of messages a second, as the service's thread does."""

    def __init__(self, store: Store, batches: list[list[tuple[int, Event]]], rate: int) -> None:
        super().__init__()
        self._store = store
        self._batches = batches
        self._rate = rate
        self.used = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        """Write."""
        due, begun = time.monotonic(), time.thread_time()
        for batch in self._batches:
            due += len(batch) / 3 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))
            self._store.write(batch, time.time())
        self.used = time.thread_time() - begun
        self.done.set()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="benchmarks.history", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", default="")
    parser.add_argument(
        "--keep", action="store_true", help="keep the file, and use it if it is there"
    )
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--messages", type=int, default=3000, help="a round of --cost")
    parser.add_argument("--rate", type=int, default=1000, help="messages a second for --cost")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="mailsecure-history-", dir=Path(__file__).parent))
    try:
        database: Database
        if options.database.startswith("postgresql://"):
            database = Postgresql(options.database, None)
        else:
            database = Sqlite(Path(options.database or work / "records.db"))
        if options.cost:
            cost(database, options.messages, options.rate)
            return
        print(f"{options.rows:,} messages in {type(database).__name__}")
        store = Store(database, database.engine(), "mx1", True)
        store.open()
        if not (options.keep and store.measure().oldest):
            with database.connect(database.engine()) as connection:
                Maker(connection, options.rows).make()
        octets = store.measure().octets
        print(f"  {octets / 1e9:.2f} GB, {octets / options.rows:.0f} octets a message")
        store.close()
        measure(database, options.rows)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
