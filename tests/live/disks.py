"""Disks that fill up and fail, for tests as root.

:func:`small_disk` mounts a small file system, :func:`fill` leaves no room on it, and
:func:`failing_fsync` has every fsync and fdatasync of a process fail with EIO for a
while, as a dying disk does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["failing_fsync", "fill", "fill_inodes", "slow_fsync", "small_disk"]


@contextmanager
def small_disk(
    directory: Path, *, kind: str = "ext4", size: str = "24M", inodes: int = 0
) -> Iterator[Path]:
    """Mount an ext4 image or a tmpfs of ``size`` in ``directory``; yields its path."""
    place = directory / "disk"
    place.mkdir()
    if kind == "ext4":
        image = directory / "disk.img"
        with image.open("wb") as file:
            file.truncate(int(size.rstrip("M")) << 20)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(place))
    else:
        count = f",nr_inodes={inodes}" if inodes else ""
        _run("mount", "-t", "tmpfs", "-o", f"size={size}{count}", "none", str(place))
    try:
        place.chmod(0o755)
        yield place
    finally:
        for _ in range(50):
            if (
                subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")


def fill(place: Path, leave: int = 0) -> Path:
    """Leave no more than ``leave`` octets on a disk; returns the file to remove again."""
    ballast = place / "ballast"
    piece = b"\0" * 65536
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            free = os.statvfs(place)
            room = free.f_bavail * free.f_frsize - leave
            if room < len(piece):
                piece = piece[: max(1, min(4096, room))]
            if room <= 0 or not file.write(piece):
                break
    return ballast


def fill_inodes(place: Path) -> Path:
    """Use up every inode of a disk; returns the directory to remove again."""
    crowd = place / "crowd"
    crowd.mkdir()
    with suppress(OSError):
        for number in range(100_000):
            (crowd / str(number)).touch()
    return crowd


@contextmanager
def failing_fsync(pid: int, when: str = "1+", calls: str = "fsync,fdatasync") -> Iterator[None]:
    """Have the syncs of process ``pid`` fail with EIO; they work again afterwards.

    ``when`` counts the calls of each thread, as strace does: ``3``, ``2+``.
    """
    with _injected(pid, calls, f"error=EIO:when={when}"):
        yield


@contextmanager
def slow_fsync(pid: int, seconds: float, calls: str = "fsync,fdatasync") -> Iterator[None]:
    """Have each sync of process ``pid`` take so long."""
    with _injected(pid, calls, f"delay_enter={int(seconds * 1e6)}"):
        yield


@contextmanager
def _injected(pid: int, calls: str, fault: str) -> Iterator[None]:
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-o", "/dev/null", "-p", str(pid)),
            *("-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if tracer.stderr is None or "attached" not in (line := tracer.stderr.readline()):
            raise AssertionError(f"strace did not attach: {line}")
        # It goes on to attach to the other threads.
        time.sleep(0.2)
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        if tracer.stderr is not None:
            tracer.stderr.close()
