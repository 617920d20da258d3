"""Serve simulators until stopped: `python -m personas_dagster.simulators [TYPE ...]`."""

import argparse
import logging
import threading

from personas_dagster.simulators import SIMULATORS, simulator
from personas_dagster.simulators.base import INSPECT
from personas_dagster.simulators.serving import Served

logger = logging.getLogger("personas_dagster.simulators")


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate the tools of the catalogue.")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("types", nargs="*", default=sorted(SIMULATORS), metavar="TYPE")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.types) - SIMULATORS.keys())
    if unknown:
        parser.error(f"no simulator of {', '.join(unknown)}; there are {', '.join(SIMULATORS)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    accounts = {name: simulator(name) for name in arguments.types}
    with Served(accounts, port=arguments.port) as served:
        for name in accounts:
            logger.info("%-20s %s/%s  (state: GET ...%s)", name, served.url, name, INSPECT)
        logger.info("stop with Ctrl-C")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
