"""Keep the daemon's memory from others: no core file, and no reading of it by processes of the same user."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import sys
from typing import Final

logger = logging.getLogger(__name__)

_PR_SET_DUMPABLE: Final = 4


def harden() -> None:
    """Refuse core files, and, on Linux, others' looks into ``/proc/PID`` and attached debuggers.

    Programs that it starts write no core files either; what others see of them is theirs to decide. Root can do
    all of it as before, but for the core file.
    What the system refuses is said in the log and is no reason not to run.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            _set_undumpable()
    except OSError as error:
        logger.warning("memory cannot be kept from others", extra={"error": error.strerror})


def _set_undumpable() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
