"""The command line: `personas`."""
