"""`kernel`'s loops, compiled by numba and cached.

Importing this takes a second or two, and compiling for the first time some fifteen, so it is
imported only when a load is large enough.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np
from numba import njit

from personas_dagster.identity import kernel

_NAMESPACE: dict[str, Any] = dict(vars(kernel))
for _name, _function in vars(kernel).items():
    if isinstance(_function, FunctionType):
        _copy = FunctionType(_function.__code__, _NAMESPACE, _name)
        _copy.__module__ = kernel.__name__
        _NAMESPACE[_name] = njit(cache=True)(_copy)

run = _NAMESPACE["run"]
suspects = _NAMESPACE["suspects"]


def _warm() -> None:
    """Have both in memory, by resolving one message of one identifier."""
    one, wide = np.zeros(1, np.int32), np.ones(2, np.int64)
    none, offsets = np.empty(0, np.int32), np.arange(2)
    guarded = suspects(one, one, wide, wide, one - 1, none, offsets, one)
    instants = np.zeros(1, np.int64)
    run(one, wide, wide, wide, one - 1, instants, none, offsets, one, none, none, one, instants,
        guarded)  # fmt: skip


_warm()
