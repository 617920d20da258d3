"""When things are materialised: the assets of a space, thin over the core."""
