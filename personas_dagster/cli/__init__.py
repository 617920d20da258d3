"""The command line: `personas`."""

import gc

from personas_dagster.cli import leaving as leaving  # before all that asks for the process's end

# What a command makes, it mostly keeps until it ends: modules, definitions, plans. Looking for
# cycles as often as Python does by itself takes a tenth of an hourly refresh's time outside the
# engine; so seldom, what is not found in between is some tens of megabytes.
gc.set_threshold(100_000, 50, 100)
