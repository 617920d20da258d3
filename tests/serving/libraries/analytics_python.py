"""The scenario through a library of Python: `python analytics_python.py MODULE HOST KEY GZIP`."""

import sys
from importlib import import_module

module, host, key, packed = sys.argv[1:]
Client = import_module(module).Client
failures = []
client = Client(key, host=host, gzip=packed == "gzip", on_error=lambda *args: failures.append(args))
client.identify("u1", {"email": "ann@example.com"})
client.track("u1", "Order Completed", {"revenue": 12.5})
client.flush()
client.track(anonymous_id="a1", event="Product Viewed", properties={"sku": "é"})
client.page("u1", "Shop", "Home", {"url": "https://shop.example/"})
client.flush()
client.screen("u1", "App", "Main")
client.flush()
client.group("u1", "g1", {"plan": "pro"})
client.flush()
client.alias("a1", "u1")
client.flush()
client.join()
sys.exit(f"failed: {failures}" if failures else 0)
