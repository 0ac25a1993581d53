"""Where the time of the reactor's thread goes, by function, for one message.

``python -m benchmarks.profile [--relay] [--messages 5000]`` runs ours under cProfile with
20 sessions of 1 KB.  cProfile makes small functions look dearer than they are; it is for
finding what is called too often, not for absolute figures.
"""

from __future__ import annotations

import argparse
import pstats
import subprocess
import time
from pathlib import Path

from .peers import Ours
from .sidebyside import HERE, SINK, Load, free_port, send


class Profiled(Ours):
    """Ours, writing its profile when it ends."""

    name = "profiled"

    def prepare(self) -> list[str]:
        """Add twistd's profiling options."""
        command = super().prepare()
        place = command.index("--nodaemon")
        profile = [f"--profile={self.directory}.prof", "--savestats", "--profiler=cprofile"]
        return [*command[:place], *profile, *command[place:]]


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relay", action="store_true", help="deliver to a sink as well")
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--dir", type=Path, default=HERE / ".work")
    options = parser.parse_args()
    sink_port = free_port()
    sink = None
    if options.relay:
        sink = subprocess.Popen([SINK, "-u", "nobody", f"127.0.0.1:{sink_port}", "1000"])
    try:
        with Profiled(
            options.dir / "profiled", free_port(), sink_port, hold=not options.relay
        ) as it:
            send(it.port, Load(1, 20, False, options.messages))
            time.sleep(3)
    finally:
        if sink is not None:
            sink.kill()
            sink.wait()
    statistics = pstats.Stats(f"{options.dir / 'profiled'}.prof")
    print(f"{options.messages} messages; divide by that for one")
    statistics.sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
