"""Private folders: nobody else may write to them."""

import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path


def check_private(folder: Path) -> None:
    """Make sure that only this user can write to the folder, and create a missing one with mode 0700.

    Jobs unpickle its files and run its code: everybody who can write there can run code as this user. Only the folder
    itself is checked: the owners of the folders above it are trusted. Raises ValueError, with the remedy, for a link,
    another user's folder or one that others can write to, and OSError if it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # a dangling link, too
        folder.mkdir(mode=0o700)
    found = folder.lstat()  # of a link itself: where it leads could change after this
    quoted = shlex.quote(str(folder))
    if stat.S_ISLNK(found.st_mode):
        raise ValueError(f"{folder} is a link; jobs need a folder of their own there: rm {quoted}")
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{folder} is not a folder; move it away: jobs need a folder there")
    if found.st_uid != os.geteuid():
        raise ValueError(
            f"{folder} belongs to another user (number {found.st_uid}), who could run code as you through it; "
            "choose another folder with OUT=…"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(
            f"other users can write to {folder} (mode {stat.S_IMODE(found.st_mode):04o}) and so run code as you; "
            f"if nobody has, close it: chmod 700 {quoted}"
        )
