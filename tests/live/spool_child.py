"""A process that fills a spool, says what it does, and is killed: ``python -m … DIRECTORY``.

Half of the mail is quarantined for some or all recipients.  What was accepted is settled,
released or deleted now and then.  Before each act a line ``try WHAT ID …`` is written to
standard output, after it ``did WHAT ID …``; a line is written at once or not at all, so who
reads them knows of every act whether it must, may or cannot have happened.
"""

from __future__ import annotations

import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from mailsecure.config.load import parse_config
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import NewMessage, Quarantine, Settlement
from mailsecure.spool.body import MemoryBody
from mailsecure.spool.ids import IdSource, MessageId
from mailsecure.spool.sqlite import SqliteSpool
from mailsecure.world import World

from .load import unique_message

CLIENTS = 8
SIZES = (300, 300, 3_000, 30_000, 300_000)
RECIPIENTS = tuple(Recipient(f"{name}@example.com", "example.com") for name in "abc")


def say(*words: object) -> None:
    """Write a line, whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def client(spool: SqliteSpool, ids: IdSource, chance: random.Random) -> None:
    """Accept messages for ever, and do something to some of them."""
    mine: list[tuple[MessageId, tuple[int, ...], tuple[int, ...]]] = []
    while True:
        id, unique_body = ids.draw(), unique_message(chance.choice(SIZES))
        held = chance.choice(((), (), (), (0, 1, 2), (0, 1, 2), (1,)))
        queued = tuple(index for index in range(3) if index not in held)
        message = NewMessage(
            id,
            Envelope("s@client.test", RECIPIENTS),
            Arrival("192.0.2.1"),
            time.time(),
            MemoryBody([unique_body[1]]),
            time.time(),
            Quarantine(frozenset(held), "looks bad") if held else None,
        )
        names = ("".join(map(str, each)) or "-" for each in (queued, held))
        words = ("accept", id, *names, unique_body[0])
        say("try", *words)
        await spool.accept(message)
        say("did", *words)
        mine.append((id, queued, held))
        if chance.random() < 0.6:
            await act(spool, chance, *mine.pop(chance.randrange(len(mine))))
        await deferLater(reactor, 0)


async def act(
    spool: SqliteSpool,
    chance: random.Random,
    id: MessageId,
    queued: tuple[int, ...],
    held: tuple[int, ...],
) -> None:
    """Settle, release or delete."""
    verbs = ["settle"] * bool(queued) + ["release", "delete"] * bool(held)
    verb = chance.choice(verbs)
    say("try", verb, id)
    if verb == "settle":
        await spool.settle(Settlement(id, done=queued))
    elif verb == "release":
        await spool.release_quarantined([id], time.time())
    else:
        await spool.delete_quarantined([id])
    say("did", verb, id)


def main() -> None:
    """Open the spool and begin."""
    chance = random.SystemRandom()
    world = World(reactor, reactor, time.time, chance, None)  # type: ignore[arg-type]
    settings = replace(parse_config("", "child").spool, segment_size=1 << 20, min_free=0)
    spool = SqliteSpool(Path(sys.argv[1]), settings, world)
    ids = IdSource(time.time, chance)

    def begin(_: None) -> None:
        for _ in range(CLIENTS):
            Deferred.fromCoroutine(client(spool, ids, chance)).addErrback(fail)

    def fail(failure: object) -> None:
        sys.stderr.write(f"{failure}\n")
        os._exit(1)

    spool.open().addCallbacks(begin, fail)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
