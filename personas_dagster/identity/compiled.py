"""`kernel.run`, compiled by numba and cached.

Importing this takes a second, and compiling for the first time some fifteen, so it is imported
only when a load is large enough.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

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
