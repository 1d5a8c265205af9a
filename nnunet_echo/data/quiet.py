"""pydicom without its voice: its warnings and its log quote the values of a file, and so whose it is."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings and the log of pydicom.

    >>> with quietly():
    ...     warnings.warn("Invalid value for VR UI: '1.2.03'.")
    ...     logging.getLogger("pydicom.pixels").isEnabledFor(logging.ERROR)
    False
    >>> logging.getLogger("pydicom.pixels").isEnabledFor(logging.ERROR)
    True
    """
    log = logging.getLogger("pydicom")
    was = log.level
    log.setLevel(logging.CRITICAL + 1)  # of its decoders' loggers, too, which `disabled` would not reach
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(was)
