"""placeholder"""

from pathlib import Path


def main(directory: Path, quick: bool) -> None: ...
