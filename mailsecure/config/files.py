"""The ini file on this machine: read, loaded, and held against what is there.

The thin layer with input and output above :mod:`.load`: it reads the file, lets relative
paths start at the file's directory, fills in this machine's names, and checks that the
files, directories and users that are named exist.  Everything found is told at once,
together with what the text alone gave.

It never asks the DNS: a name server that is away must not keep a mail server from
starting.  It does touch the disk, so at a reload call it from a thread
(``world.in_thread(read_config, path)``); it keeps no state.
"""

from __future__ import annotations

import grp
import os
import platform
import pwd
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigProblems, Problem
from .load import Loaded, load
from .model import Config, Route, RouteKind
from .routes import parse_hostname
from .schema import DOMAINS_SECTION, fields_of, titled

__all__ = ["full_name", "read_config"]

_LIMIT = 4 << 20
_HOSTS = Path("/etc/hosts")


def read_config(path: Path) -> Config:
    """Return the Config of the file at ``path``, with absolute paths and all names.

    Raises :class:`~..errors.ConfigProblems` and nothing else.
    """
    loaded = load(_text(path), str(path))
    loaded.config = _named(_anchored(loaded.config, path), loaded)
    for (title, option), what in _missing(loaded.config):
        if (title, option) not in loaded.wrong:
            loaded.problem(title, option, what)
    return loaded.settle()


def _text(path: Path) -> str:
    """Read the file, a bounded part of it at most, as UTF-8."""
    try:
        with path.open("rb") as stream:
            octets = stream.read(_LIMIT + 1)
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}") from None
    if len(octets) > _LIMIT:
        raise _unreadable(path, f"is larger than {_LIMIT >> 20}M: this is no ini file")
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        what = f"holds the octet 0x{octets[error.start]:02X}, which is not UTF-8"
        raise _unreadable(path, what, line, "save the file as UTF-8") from None


def _unreadable(path: Path, what: str, line: int = 0, hint: str = "") -> ConfigProblems:
    return ConfigProblems([Problem(str(path), line, "", "", what, hint)])


def _anchored(config: Config, path: Path) -> Config:
    """Let relative paths start at the directory of the ini file."""
    base = path.absolute().parent.resolve()

    def absolute(place: object) -> str:
        return os.path.normpath(base / str(place))

    anchor: dict[str, Callable[[Any], Any]] = {
        "directory": lambda value: Path(absolute(value)),
        "file?": lambda value: value and Path(absolute(value)),
        "secret?": lambda value: value and Path(absolute(value)),
        "folder?": lambda value: value and Path(absolute(value)),
        "database": lambda value: value if not value or "://" in value else absolute(value),
        "output": lambda value: value if value == "-" else absolute(value),
    }
    anchored = {}
    for title, section, values in titled(config):
        moved = {
            each.name: anchor[each.kind](getattr(values, each.name))
            for each in section.options.values()
            if each.kind in anchor
        }
        anchored[title] = replace(values, **moved)
    domains = {
        domain: replace(route, path=absolute(route.path)) if route.path else route
        for domain, route in config.domains.items()
    }
    return replace(config, domains=domains, **fields_of(anchored))


def _named(config: Config, loaded: Loaded) -> Config:
    """Fill in the names of this machine where the ini leaves them open."""
    node = config.node
    host = platform.node().rstrip(".") or "localhost"
    name, hostname = node.name or host.partition(".")[0], node.hostname
    if not hostname:
        try:
            hostname = parse_hostname(full_name(host, _HOSTS))
        except ValueError:
            what = f"this machine calls itself {host!r}, which is no host's name; set one here"
            loaded.problem("node", "hostname", what, "for example mx1.example.com")
    return replace(config, node=replace(node, name=name, hostname=hostname))


def full_name(host: str, hosts: Path) -> str:
    """Return the full name of the machine ``host``, as the file ``hosts`` has it.

    ``host`` itself if it holds a dot, or if the file knows no full name for it.
    """
    if "." in host:
        return host
    try:
        lines = hosts.read_text(errors="replace").splitlines()
    except OSError:
        return host
    for line in lines:
        names = line.partition("#")[0].split()[1:]
        if host in names:
            for name in names:
                if name.startswith(host + "."):
                    return name
    return host


def _missing(config: Config) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what is named and is not there: ((title, option), what is wrong)."""
    for title, section, values in titled(config):
        for option in section.options.values():
            check = _CHECKS.get(option.kind)
            value = getattr(values, option.name)
            what = check(value) if check and value else ""
            if what:
                yield (title, option.name), what
    for domain, route in config.domains.items():
        what = _route(route)
        if what:
            yield (DOMAINS_SECTION, domain), what


def _file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a directory"
    try:
        path.open("rb").close()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return ""


def _secret(path: Path) -> str:
    """Say what is wrong with a file that nobody but its owner is to read."""
    what = _file(path)
    if not what and path.stat().st_mode & 0o077:
        what = f"{path} can be read by others: chmod 600 it"
    return what


def _folder(path: Path) -> str:
    return "" if path.is_dir() else f"there is no directory {path}"


def _command(text: str) -> str:
    """Say why the first word of a command is nothing that can be run."""
    word = shlex.split(text)[0]
    if shutil.which(word):
        return ""
    if Path(word).is_file():
        return f"{word} may not be run: chmod 755 it"
    return f"there is no command {word}"


def _output(text: str) -> str:
    if text == "-":
        return ""
    path = Path(text)
    if path.is_dir():
        return f"{path} is a directory"
    return "" if path.parent.is_dir() else f"there is no directory {path.parent}"


def _directory(path: Path) -> str:
    """Say why ``path`` neither is a directory nor can become one.

    Where only the last part is missing the parent's owner is believed to have prepared
    it: who checks an ini need not be who runs the daemon.
    """
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not there.is_dir():
        return f"{there} is no directory"
    if there not in (path, path.parent) and not os.access(there, os.W_OK | os.X_OK):
        return f"cannot be made: there is no {path.parent}, and {there} is not yours to write"
    return ""


def _route(route: Route) -> str:
    return _directory(Path(route.path)) if route.kind is RouteKind.MAILDIR else ""


def _user(name: str) -> str:
    return _known(pwd.getpwnam, name, "user")


def _group(name: str) -> str:
    return _known(grp.getgrnam, name, "group")


def _known(find: Callable[[str], object], name: str, what: str) -> str:
    try:
        find(name)
    except KeyError:
        return f"there is no {what} {name!r} on this machine"
    return ""


_CHECKS: dict[str, Callable[[Any], str]] = {
    "file?": _file,
    "secret?": _secret,
    "folder?": _folder,
    "command": _command,
    "output": _output,
    "directory": _directory,
    "user": _user,
    "group": _group,
}
