"""A profiler that looks now and then what the reactor's thread is at.

It looks every so many milliseconds of CPU that the process uses, all threads together, so
whoever else is at work on the machine is in none of the figures, and small functions seem
no dearer than they are.  While another thread works, the reactor's is found where it
waits: for the interpreter, or in ``poll``.

twistd runs it in the place of cProfile once :func:`install` was called; what it writes is
what pstats reads.
"""

from __future__ import annotations

import marshal
import signal
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.application.app import AppProfiler, _BasicProfiler

__all__ = ["install"]

#: Seconds of CPU between two looks, if the kernel measures that finely.
INTERVAL = 0.004

Function = tuple[str, int, str]


class Sampler(_BasicProfiler):
    """Twisted's runner of a profiler."""

    def __init__(self, profileOutput: str, saveStats: bool) -> None:
        super().__init__(profileOutput, saveStats)
        #: How often the thread was found at this: the function at work, who called it, …
        self.stacks: Counter[tuple[Function, ...]] = Counter()

    def look(self, number: int, frame: FrameType | None) -> None:
        """Note what the thread is at."""
        stack: list[Function] = []
        while frame is not None:
            code = frame.f_code
            stack.append((code.co_filename, code.co_firstlineno, code.co_name))
            frame = frame.f_back
        self.stacks[tuple(stack)] += 1

    def run(self, reactor: Any) -> None:
        """Run the reactor, and write what was seen."""
        signal.signal(signal.SIGPROF, self.look)
        signal.siginterrupt(signal.SIGPROF, False)
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        try:
            reactor.run()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.write(time.process_time() - begun)

    def write(self, cpu: float) -> None:
        """Share out the CPU; write it for pstats, and whole stacks beside it, folded."""
        # The kernel's clock ticks less often than it was asked to.
        interval = cpu / max(1, self.stacks.total())
        own: Counter[Function] = Counter()
        total: Counter[Function] = Counter()
        for stack, times in self.stacks.items():
            own[stack[0]] += times
            for function in set(stack):
                total[function] += times
        found: dict[Function, tuple[int, int, float, float, dict[Function, Any]]] = {
            function: (times, times, own[function] * interval, times * interval, {})
            for function, times in total.items()
        }
        output = Path(self.profileOutput)
        output.write_bytes(marshal.dumps(found))
        lines = [
            f"{';'.join(f'{path}:{line}:{name}' for path, line, name in reversed(stack))} {times}"
            for stack, times in self.stacks.items()
        ]
        output.with_suffix(".folded").write_text("\n".join(lines) + "\n")


def install() -> None:
    """Have ``twistd --profiler=cprofile`` run this one."""
    AppProfiler.profilers["cprofile"] = Sampler
