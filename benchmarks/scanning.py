"""Mail that is judged before it is taken, side by side: ours and Postfix with its filters.

``python -m benchmarks.scanning [--quick] [--cases auth rspamd records]``.  Signed mail of
10 KB with an attachment (:mod:`.signed`) goes from a stranger to a sink, as in
:mod:`.relay`, and every server judges it with what it has (:mod:`.filters`):

auth
    ours with SPF, DKIM, DMARC, attachments, markers and its history, beside Postfix with
    postfix-policyd-spf-python and OpenDKIM.
rspamd
    ours and Postfix, with the same Rspamd.
records
    ours with its history, and without.

All of it runs in a network of its own, which ends with the run, and whose only name
server is ours (:mod:`.names`).  First each server gets each message once, and what it
delivers must say that everything was checked and passed; only then it is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import dns.message
import dns.query

from . import filters
from .filters import NAME_SERVER, Filtered
from .lan import alone
from .names import TTL
from .peers import Server
from .sidebyside import (
    HERE,
    PATIENCE,
    SINK,
    SOURCE,
    Figure,
    Load,
    free_port,
    measure,
    prepare_directory,
    show,
    tidy_end,
    write_results,
)
from .signed import CLIENT, RECIPIENT, Mail, prepare

__all__ = ["go_alone", "name_server", "send_mails"]

#: For each case: who takes part, and what the others are called beside ours.
CASES: dict[str, tuple[tuple[type[Filtered], ...], str]] = {
    "auth": ((filters.OursAuth, filters.PostfixAuth), "Postfix"),
    "rspamd": (
        (filters.OursRspamd, filters.PostfixRspamd, filters.PostfixRspamdSelfScan),
        "the better Postfix",
    ),
    "records": ((filters.OursAuth, filters.OursWithoutRecords), "without"),
    "steps": (
        (
            filters.OursPlain,
            filters.PostfixPlain,
            filters.PostfixPolicy,
            filters.PostfixMilter,
        ),
        "",
    ),
}
MESSAGES = 2000
QUICK = 600
SESSIONS = 20


def go_alone(module: str) -> None:
    """Go on in a network where only the client's address is, and our name server."""
    alone(module, [CLIENT], f"nameserver {NAME_SERVER}\n")


def send_mails(mails: list[Mail], server: Server, load: Load) -> None:
    """Send the load, by an smtp-source for each message, all at once."""
    sources = []
    some = mails[: load.sessions]
    for number, mail in enumerate(some):
        sessions = share(load.sessions, number, len(some))
        messages = share(load.messages, number, len(some))
        command = [
            SOURCE, "-s", str(sessions), "-m", str(messages), "-F", str(mail.path),
            "-M", mail.helo, "-f", mail.sender, "-t", RECIPIENT, *(["-d"] if load.several else []),
            f"{server.host}:{server.port}",
        ]  # fmt: skip
        sources.append(subprocess.Popen(command, stderr=subprocess.PIPE))
    deadline = time.monotonic() + PATIENCE
    try:
        for source in sources:
            _, said = source.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if source.returncode:
                raise SystemExit(f"{load}: smtp-source gave up: {said.decode(errors='replace')}")
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{load}: not taken within {PATIENCE:.0f} seconds") from None
    finally:
        for source in sources:
            source.kill()
            source.communicate()


def share(total: int, number: int, of: int) -> int:
    """Return a share of a total that is split as evenly as can be."""
    return total // of + (number < total % of)


@contextmanager
def name_server(zone: object, directory: Path, ttl: int) -> Iterator[int]:
    """Have our name server answer; yields its process."""
    path = directory / "zone.json"
    path.write_text(json.dumps(zone))
    words = [sys.executable, "-m", "benchmarks.names", str(path), NAME_SERVER, str(ttl)]
    process = subprocess.Popen(words, cwd=HERE.parent)
    try:
        question = dns.message.make_query("localhost", "A")
        deadline = time.monotonic() + 10
        while True:
            try:
                dns.query.udp(question, NAME_SERVER, timeout=0.2)
                break
            except (OSError, dns.exception.Timeout):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit("the name server does not answer") from None
        yield process.pid
    finally:
        process.kill()
        process.wait()


def prove(kind: type[Filtered], mails: list[Mail], directory: Path) -> None:
    """Let a server relay each message once; SystemExit if it did not judge them all."""
    folder = directory / "proof"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.chown(folder, "nobody")
    port = free_port()
    words = [SINK, "-u", "nobody", "-d", f"{folder}/m.", f"127.0.0.1:{port}", "100"]
    sink = subprocess.Popen(words)
    try:
        with kind(directory / kind.name, free_port(), port, hold=False) as server:
            send_mails(mails, server, Load(10, len(mails), False, len(mails)))
            deadline = time.monotonic() + 30
            while len(found := [each.read_text() for each in folder.iterdir()]) < len(mails):
                if time.monotonic() > deadline:
                    raise SystemExit(f"{kind.name} delivered {len(found)} of {len(mails)}")
                time.sleep(0.1)
            time.sleep(0.2)
        for text in (each.read_text() for each in folder.iterdir()):
            if lack := [word for word in kind.proof if word not in text]:
                raise SystemExit(f"{kind.name}: no {', '.join(lack)} in\n{text[:4000]}")
    finally:
        sink.kill()
        sink.wait()
    shutil.rmtree(folder)


def options_of() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="judging side by side")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES)[:3])
    parser.add_argument("--peers", nargs="+", help="only these servers")
    parser.add_argument("--sessions", type=int, nargs="+", default=[SESSIONS])
    parser.add_argument("--messages", type=int, help=f"default {MESSAGES}; quick {QUICK}")
    parser.add_argument("--rounds", type=int, help="default 5; quick 3")
    parser.add_argument("--several", action="store_true", help="several messages a session")
    parser.add_argument("--ttl", type=int, default=TTL, help="of what the DNS says; 0: not kept")
    parser.add_argument("--dir", type=Path, default=HERE / ".work", help="on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="fewer messages, 3 rounds")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.messages = options.messages or (QUICK if options.quick else MESSAGES)
    return options


def members(case: str, names: list[str] | None) -> list[type[Filtered]]:
    """Return the servers of a case that are there; say which are left out, and why."""
    kinds = []
    for kind in CASES[case][0]:
        if names is None or kind.name in names:
            if lack := kind.missing():
                print(f"left out: {kind.name}: {lack}", file=sys.stderr)
            else:
                kinds.append(kind)
    return kinds


def main() -> None:
    """Measure, print, keep the figures as JSON."""
    options = options_of()
    go_alone("benchmarks.scanning")
    prepare_directory(options.dir)
    mails, zone = prepare(options.dir / "mails")
    results: list[object] = []
    with tidy_end(), name_server(zone, options.dir, options.ttl) as helper:
        for case in options.cases:
            kinds = members(case, options.peers)
            print(f"\n{case}", flush=True)
            for kind in kinds:
                prove(kind, mails, options.dir)
            for sessions in options.sessions:
                load = Load(10, sessions, options.several, options.messages)
                figures = run(kinds, load, mails, helper, options)
                show(load, figures, CASES[case][1])
                by_name = {name: [asdict(one) for one in found] for name, found in figures.items()}
                results.append({"case": case, "load": asdict(load), "figures": by_name})
                write_results("scanning", results, options.dir)


def run(
    kinds: list[type[Filtered]],
    load: Load,
    mails: list[Mail],
    helper: int,
    options: argparse.Namespace,
) -> dict[str, list[Figure]]:
    """Measure all servers of a case, round by round."""
    figures: dict[str, list[Figure]] = {kind.name: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind in kinds:
            figure = measure(
                kind,
                load,
                True,
                options.dir,
                lambda server, part: send_mails(mails, server, part),
                [helper],
            )
            figures[kind.name].append(figure)
    return figures


if __name__ == "__main__":
    main()
