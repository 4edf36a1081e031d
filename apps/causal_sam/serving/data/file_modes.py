"""File modes of all that the server writes: those who may read the folder of the studies may read it, nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Whatever the folder allows, others of this machine change nothing.
_NEVER = stat.S_IWOTH


def follow_mode_of(studies: str, log: Path) -> None:
    """Let all files and folders that this process makes have the rights of the studies folder.

    Where the studies are on a server, or their folder is not there yet, only the account of this process has any.
    Journals of notes and sessions are narrower still, by themselves.

    Args:
        studies: folder, or address of a server.
        log: the log file, which MONAI Label opened before. Servers of one app share it, so its rights only shrink.
    """
    try:
        mode = stat.S_IMODE(os.stat(studies).st_mode) if "://" not in studies else stat.S_IRWXU
    except OSError:
        mode = stat.S_IRWXU
    mask = ~mode & 0o077 | _NEVER
    os.umask(mask)
    if log.is_file() and (status := log.stat()).st_uid == os.geteuid():
        log.chmod(stat.S_IMODE(status.st_mode) & 0o666 & ~mask)
