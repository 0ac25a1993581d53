"""Where the time of the reactor's thread goes, by room and by function, for one message.

``python -m benchmarks.profile [--relay] [--messages 5000]`` runs ours under cProfile with
20 sessions of 1 KB, one message a session.  cProfile makes small functions look dearer
than they are, and everything about twice as slow: it is for finding what is called too
often, not for absolute figures.  It sees the reactor's thread alone; what the writer of
the spool does in its own is in none of the lines, though it takes its share of the
interpreter.  Waiting for the network (epoll) is told apart.

The profiler's clock is the wall's.  A call that wakes another process (send) is charged
with the time that process then runs in our place, all the more on a busy machine; the
CPU of the whole process, user and kernel, is printed above the tables to compare.
"""

from __future__ import annotations

import argparse
import pstats
import time
from collections import Counter
from pathlib import Path

from .peers import TICK, Ours, Server, stat
from .sidebyside import HERE, Load, Sink, choose, free_port, prepare_directory, send, tidy_end

#: A function as pstats names it: file, line, name.
Function = tuple[str, int, str]
#: How long to wait after the last message, for what is still under way.
SETTLE = 2.0


class Profiled(Ours):
    """Ours, writing its profile when it ends."""

    name = "profiled"

    def prepare(self) -> list[str]:
        """Add twistd's profiling options."""
        command = super().prepare()
        place = command.index("--nodaemon")
        profile = [f"--profile={self.directory}.prof", "--savestats", "--profiler=cprofile"]
        return [*command[:place], *profile, *command[place:]]


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


def record(options: argparse.Namespace) -> pstats.Stats:
    """Run ours under load, print the CPU it took; return its profile."""
    profile = Path(f"{options.dir / 'profiled'}.prof")
    profile.unlink(missing_ok=True)
    sink_port = free_port()
    sink = Sink(sink_port, options.dir / "profiled.sink") if options.relay else None
    try:
        hold = not options.relay
        with Profiled(options.dir / "profiled", free_port(), sink_port, hold=hold) as server:
            before = times(server)
            send(server.port, Load(1, 20, False, options.messages))
            if sink is not None:
                sink.wait(options.messages, server.name)
            user, kernel = (
                (after - begun) / TICK / options.messages * 1e6
                for begun, after in zip(before, times(server), strict=True)
            )
            time.sleep(SETTLE)
    finally:
        if sink is not None:
            sink.stop()
    if not profile.exists():
        raise SystemExit("it ended without writing its profile")
    print(f"CPU of the process, all threads: {user:.0f} us user, {kernel:.0f} us kernel a message")
    return pstats.Stats(str(profile))


def times(server: Server) -> tuple[int, int]:
    """Return the ticks of CPU that the server's processes spent, user and kernel."""
    rows = [row for pid in server.tree() if (row := stat(pid))]
    return sum(int(row[11]) for row in rows), sum(int(row[12]) for row in rows)


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
    parser.add_argument("--dir", type=Path, default=HERE / ".work")
    options = parser.parse_args()
    choose([Ours.name])
    prepare_directory(options.dir)
    with tidy_end():
        statistics = record(options)
    show(statistics, options.messages, options.lines)


if __name__ == "__main__":
    main()
