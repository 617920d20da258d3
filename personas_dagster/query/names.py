"""The vocabulary of the language, as data: the names that the parser knows.

What belongs here: names and how many arguments they take. What does not: what they mean.
"""

from __future__ import annotations

EXTRACTORS = ("event", "trait", "property", "context", "entity", "literal")
FILTERS = ("where", "within", "between", "sources", "expires_after")
REDUCERS = ("count", "sum", "avg", "min", "max", "mode", "first", "last", "unique")
UNITS = ("second", "minute", "hour", "day")

SYMBOLS = {
    "=": "equals",
    "==": "equals",
    "!=": "differs",
    ">": "greater_than",
    ">=": "at_least",
    "<": "less_than",
    "<=": "at_most",
}
# What each comparator takes: nothing, one value, one or more values, or a duration.
COMPARATORS = {
    "equals": "value",
    "differs": "value",
    "greater_than": "value",
    "at_least": "value",
    "less_than": "value",
    "at_most": "value",
    "absent": "nothing",
    "exists": "nothing",
    "contains": "values",
    "omits": "values",
    "starts_with": "value",
    "ends_with": "value",
    "one_of": "values",
    "none_of": "values",
    "before_date": "value",
    "after_date": "value",
    "within_last": "duration",
    "within_next": "duration",
    "before_last": "duration",
    "after_next": "duration",
}
# The types that `as` may name, by reducer.
AS_TYPES = {
    "min": ("number", "string"),
    "max": ("number", "string"),
    "mode": ("number", "string", "array"),
}
EVERYTHING = (*EXTRACTORS, *FILTERS, *REDUCERS, *COMPARATORS)
