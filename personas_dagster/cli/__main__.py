"""`python -m personas_dagster.cli`."""

from personas_dagster.cli.main import main

main()
