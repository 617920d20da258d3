"""Made-up data and stand-ins for demos and tests. Nothing here is needed in production."""
