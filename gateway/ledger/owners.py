"""Who owns which files of a spool: a process does while it holds the lock of the file beside them.

Rule: whoever gets that lock knows that its owner is gone. A lock is held before others can see it. One that
was taken over says so, for those who want to know when that is done. Knows no line of a file.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


def claim(folder: Path) -> tuple[str, int]:
    """A new owner of files in ``folder``, and the descriptor that holds its lock. Raises ``OSError``."""
    owner = f"{os.getpid()}-{secrets.token_hex(6)}"
    return owner, held(folder, owner)


def held(folder: Path, owner: str) -> int:
    """The descriptor of this owner's lock, which is made with its folder. Raises ``OSError``."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = folder / f".{owner}"
    lock = os.open(made, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.rename(lock_of(folder, owner))  # from here on others see it, and it was locked before
    except OSError:
        os.close(lock)
        raise
    return lock


def taken_over(folder: Path, owner: str) -> int | None:
    """The lock of an owner that is gone; None while it lives. Raises ``OSError`` if it cannot be opened."""
    try:
        lock = os.open(lock_of(folder, owner), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(lock, b"+", 0)
    except OSError:
        os.close(lock)
        return None
    return lock


def being_taken_over(folder: Path, but: Container[str] = ()) -> bool:
    """Whether files of somebody who is gone wait here, no matter who reads them, ``but`` those of these."""
    for owner in owners(folder):
        with suppress(OSError):
            if owner not in but and lock_of(folder, owner).stat().st_size:
                return True
    return False


def lock_of(folder: Path, owner: str) -> Path:
    return folder / f"{owner}.lock"


def owners(folder: Path) -> list[str]:
    """Whoever has files here, alive or gone."""
    return sorted(path.stem for path in folder.glob("*.lock"))


def segment_of(folder: Path, owner: str, number: int) -> Path:
    return folder / f"{owner}.{number:06d}.spool"


class Mark(NamedTuple):
    """An open file and the path that led to it."""

    path: str
    device: int
    inode: int

    def there(self) -> bool:
        """Whether the path still leads to it."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return found.st_ino == self.inode and found.st_dev == self.device


def mark(path: Path, file: int) -> Mark:
    """Of a file that was just opened."""
    found = os.fstat(file)
    return Mark(str(path), found.st_dev, found.st_ino)
