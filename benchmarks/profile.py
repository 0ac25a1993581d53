"""Where the time of the reactor's thread goes, by room and by function, for one message.

``python -m benchmarks.profile [--relay] [--messages 5000]`` runs ours under cProfile with
20 sessions of 1 KB, one message a session; ``--scan auth`` (or ``no-records``, ``rspamd``)
has it judge mail as :mod:`.scanning` does, and relay it.  cProfile makes small functions
look dearer than they are, and everything about twice as slow: it is for finding what is
called too often, not for absolute figures.  It sees the reactor's thread alone; what the
writer of the spool does in its own, or a process that takes messages apart, is in none of
the lines, though the former takes its share of the interpreter.  Waiting for the network
(epoll) is told apart.

The profiler's clock is the wall's.  A call that wakes another process (send) is charged
with the time that process then runs in our place, all the more on a busy machine; the
CPU of each process, user and kernel, is printed above the tables to compare.
``--sample`` looks now and then instead (:mod:`.sampling`): it distorts nothing, and counts
no calls.
"""

from __future__ import annotations

import argparse
import pstats
import time
from collections import Counter
from pathlib import Path

from .filters import OursAuth, OursRspamd, OursWithoutRecords
from .names import TTL
from .peers import ROOT, TICK, Ours, Server, stat
from .scanning import go_alone, name_server, send_mails
from .sidebyside import (
    HERE,
    Load,
    Sender,
    Sink,
    choose,
    free_port,
    prepare_directory,
    send_to,
    tidy_end,
)
from .signed import prepare

#: A function as pstats names it: file, line, name.
Function = tuple[str, int, str]
#: How long to wait after the last message, for what is still under way.
SETTLE = 2.0


class Profiled(Ours):
    """Ours, writing its profile when it ends."""

    def options(self) -> list[str]:
        """Return twistd's profiling options."""
        return [f"--profile={self.directory}.prof", "--savestats", "--profiler=cprofile"]


SAMPLED = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    f"from benchmarks.sampling import install; install(); {Ours.script}"
)


class ProfiledAuth(Profiled, OursAuth):
    """Ours that judges."""


class ProfiledWithoutRecords(Profiled, OursWithoutRecords):
    """Ours that judges and keeps no history."""


class ProfiledRspamd(Profiled, OursRspamd):
    """Ours that lets Rspamd judge."""


SCANNING: dict[str, type[Profiled]] = {
    "auth": ProfiledAuth,
    "no-records": ProfiledWithoutRecords,
    "rspamd": ProfiledRspamd,
}


def room(function: Function) -> str:
    """Return the part of the house, or the library, that a function belongs to."""
    path, _, name = function
    if path == "~":
        return f"built in: {name}" if "poll" in name else "built in"
    parts = Path(path).parts
    if "mailsecure" in parts:
        inside = parts[len(parts) - parts[::-1].index("mailsecure") :]
        return f"mailsecure/{inside[0]}"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    return "standard library"


def record(options: argparse.Namespace, kind: type[Profiled], sender: Sender) -> pstats.Stats:
    """Run ours under load, print the CPU it took; return its profile."""
    profile = Path(f"{options.dir / 'profiled'}.prof")
    profile.unlink(missing_ok=True)
    sink_port = free_port()
    sink = Sink(sink_port, options.dir / "profiled.sink") if options.relay else None
    try:
        hold = not options.relay
        with kind(options.dir / "profiled", free_port(), sink_port, hold=hold) as server:
            before = times(server)
            sender(server, Load(1, 20, False, options.messages))
            if sink is not None:
                sink.wait(options.messages, server.name)
            tell(before, times(server), options.messages)
            time.sleep(SETTLE)
    finally:
        if sink is not None:
            sink.stop()
    if not profile.exists():
        raise SystemExit("it ended without writing its profile")
    return pstats.Stats(str(profile))


def record_scanning(options: argparse.Namespace) -> pstats.Stats:
    """Do the same where it judges: in a network of its own, with a name server."""
    go_alone("benchmarks.profile")
    prepare_directory(options.dir)
    mails, zone = prepare(options.dir / "mails")
    options.relay = True
    with tidy_end(), name_server(zone, options.dir, TTL):
        return record(
            options, SCANNING[options.scan], lambda server, load: send_mails(mails, server, load)
        )


def times(server: Server) -> dict[int, tuple[str, int, int]]:
    """Return each process of the server: its command, and its ticks of CPU, user and kernel.

    Those of its children that have ended are among them.
    """
    found = {}
    for pid in server.tree():
        if row := stat(pid):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            user, kernel, ended_user, ended_kernel = map(int, row[11:15])
            command = b" ".join(words)[-60:].decode(errors="replace")
            found[pid] = (command, user + ended_user, kernel + ended_kernel)
    return found


def tell(
    before: dict[int, tuple[str, int, int]], after: dict[int, tuple[str, int, int]], messages: int
) -> None:
    """Print the CPU that each process took meanwhile, all its threads."""
    for pid, (command, user, kernel) in after.items():
        _, user_before, kernel_before = before.get(pid, ("", 0, 0))
        scale = 1e6 / TICK / messages
        print(
            f"{(user - user_before) * scale:6.0f} us user, "
            f"{(kernel - kernel_before) * scale:5.0f} us kernel a message: {pid} {command}"
        )


def show(statistics: pstats.Stats, messages: int, lines: int) -> None:
    """Print both tables."""
    functions: dict[Function, tuple[int, int, float, float, object]]
    functions = statistics.stats  # type: ignore[attr-defined]
    rooms: Counter[str] = Counter()
    for function, (_, _, own, _, _) in functions.items():
        rooms[room(function)] += own  # type: ignore[assignment]
    scale = 1e6 / messages
    print(f"microseconds for one of {messages} messages, under the profiler\n")
    for name, seconds in rooms.most_common(16):
        print(f"{seconds * scale:9.1f}  {name}")
    print("\n      own     total    calls")
    dearest = sorted(functions.items(), key=lambda item: item[1][2], reverse=True)
    for (path, line, name), (_, calls, own, total, _) in dearest[:lines]:
        where = name if path == "~" else f"{'/'.join(Path(path).parts[-2:])}:{line} {name}"
        print(f"{own * scale:9.1f} {total * scale:9.1f} {calls / messages:8.1f}  {where}")


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description="where the reactor's thread spends its time")
    parser.add_argument("--relay", action="store_true", help="deliver to a sink as well")
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--lines", type=int, default=40, help="functions to show")
    parser.add_argument("--scan", choices=list(SCANNING), help="judge as well, mail of 10 KB")
    parser.add_argument("--sample", action="store_true", help="look now and then instead")
    parser.add_argument("--dir", type=Path, default=HERE / ".work")
    options = parser.parse_args()
    choose([Ours.name])
    if options.sample:
        Profiled.script = SAMPLED
    if options.scan:
        statistics = record_scanning(options)
    else:
        prepare_directory(options.dir)
        with tidy_end():
            statistics = record(options, Profiled, send_to)
    show(statistics, options.messages, options.lines)


if __name__ == "__main__":
    main()
