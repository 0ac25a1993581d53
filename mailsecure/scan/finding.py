"""Finds the checks that there are: ours, those of installed packages, and a site's own.

Makers are plugins of Twisted's (:mod:`twisted.plugin`): attributes of modules in the package
``twisted.plugins`` that provide :class:`~.api.ICheckMaker`.  The directory that ``[scan]
plugins`` names is put at the end of that package's path.

``twisted.plugin`` alone would not do.  It logs a file that cannot be imported and passes over
it, and a gateway that runs without a check that its postmaster wrote is not what he wants; and
it believes its ``dropin.cache`` where that is newer than a file that was changed or installed
with an old date.  So the site's files and ours are imported here, and looked through; what
``getPlugins`` finds besides is added.  A cache that cannot be written is of no consequence.

``assemble`` calls :func:`find_makers` once, at start.
"""

from __future__ import annotations

import importlib
import re
import stat
import traceback
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from twisted.logger import Logger
from twisted.plugin import getPlugins
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from twisted import plugins

from ..config.model import Config
from ..errors import LocalFault, Problem
from .api import ICheckMaker

__all__ = ["find_makers", "unknown_checks"]

_log = Logger(namespace="scan")

OURS = "mailsecure_checks"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def find_makers(directory: Path | None) -> dict[str, ICheckMaker]:
    """Return all makers by name.

    ``directory`` is the site's own, None where there is none.  Raises LocalFault, with the
    file and the reason, where one of its files cannot be used, or two checks have one name.
    """
    modules = [importlib.import_module(f"{plugins.__name__}.{OURS}"), *_of_site(directory)]
    makers: dict[str, ICheckMaker] = {}
    places: dict[str, str] = {}
    for maker, place in _all(modules):
        name = _name_of(maker, place)
        other = makers.setdefault(name, maker)
        if other is not maker:
            raise LocalFault(f"two checks are called {name}: in {places[name]} and in {place}")
        places.setdefault(name, place)
    return makers


def _all(modules: Iterable[ModuleType]) -> Iterator[tuple[ICheckMaker, str]]:
    """Yield makers, some twice, and where each is from."""
    for module in modules:
        makers = [each for each in vars(module).values() if ICheckMaker.providedBy(each)]
        if not makers:
            _log.warn("{file} holds no check", file=module.__file__)
        for maker in makers:
            yield maker, str(module.__file__)
    for maker in getPlugins(ICheckMaker, plugins):
        yield maker, type(maker).__module__


def _name_of(maker: ICheckMaker, place: str) -> str:
    """Return a maker's name, or say what is wrong with the maker."""
    try:
        verifyObject(ICheckMaker, maker)
    except Invalid as error:
        raise LocalFault(f"{place}: {' '.join(str(error).split())}") from None
    if not isinstance(maker.name, str) or not _NAME.fullmatch(maker.name):
        raise LocalFault(
            f"{place}: {maker.name!r} is no name of a check: up to 32 lower-case letters,"
            " digits, underscores and hyphens"
        )
    return maker.name


def _of_site(directory: Path | None) -> list[ModuleType]:
    """Return the modules of the site's directory."""
    if directory is None:
        return []
    try:
        mode = directory.stat().st_mode
        files = sorted(directory.glob("*.py"))
    except OSError as error:
        raise LocalFault(f"cannot use [scan] plugins {directory}: {error.strerror}") from None
    if mode & stat.S_IWOTH:
        raise LocalFault(
            f"anybody may write into [scan] plugins {directory}, and what is there runs as we do:"
            " chmod o-w it"
        )
    place = str(directory.resolve())
    if place not in plugins.__path__:
        plugins.__path__.append(place)
    importlib.invalidate_caches()
    return [_imported(file) for file in files if file.name != "__init__.py"]


def _imported(file: Path) -> ModuleType:
    if not file.stem.isidentifier():
        raise LocalFault(f"{file}: cannot be imported: {file.stem!r} is no name of a module")
    try:
        module = importlib.import_module(f"{plugins.__name__}.{file.stem}")
    except Exception as error:
        # Somebody else's code may raise anything.
        raise LocalFault(f"{_place_in(file, error)}: {type(error).__name__}: {error}") from error
    if module.__file__ is None or Path(module.__file__).resolve() != file.resolve():
        raise LocalFault(f"{file}: there is a module {file.stem} already, {module.__file__}")
    return module


def _place_in(file: Path, error: Exception) -> str:
    """Return the file and the last of its lines that ``error`` came by."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == file.resolve() and frame.lineno
    ]
    return f"{file}:{lines[-1]}" if lines else str(file)


def unknown_checks(config: Config, makers: Mapping[str, ICheckMaker]) -> list[Problem]:
    """Return what ``config`` says of checks that do not exist, with the nearest that does."""
    named = [
        ("scan", option, name)
        for option in ("checks", "engines")
        for name in getattr(config.scan, option)
    ]
    named += [(f"check:{name}", "", name) for name in config.check]
    return [
        Problem(config.file, 0, title, option, f"there is no check {name!r}", _hint(name, makers))
        for title, option, name in named
        if name not in makers
    ]


def _hint(name: str, makers: Mapping[str, ICheckMaker]) -> str:
    near = get_close_matches(name.lower(), makers, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(makers))}"
