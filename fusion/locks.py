"""One process at a time in a folder, where the disk can see to that."""

import errno
import fcntl
from typing import IO, Any

NONE = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
"""What disks answer that know no locks, as some of clusters and clouds do."""


def lock(file: IO[Any], *, wait: bool = False) -> bool:
    """Lock an open file; the lock goes with the file and the process, also a killed one.

    Returns:
        False where the disk has no locks.

    Raises:
        BlockingIOError: Another process holds it, and nobody waits.
        OSError: The disk is at fault.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in NONE:
            raise
        return False
    return True
