"""Telling Dagster that a space's definitions changed: its code location is loaded anew."""

from __future__ import annotations

import os
from typing import Any

import httpx

URL = "PERSONAS_WEBSERVER_URL"
"""The environment variable that says where Dagster's webserver is."""
_SECONDS = 60.0
_MUTATION = """
mutation Reload($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) {
    __typename
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename } }
    ... on PythonError { message }
  }
}
"""


def reload(location: str) -> dict[str, Any]:
    """`{"done": true}`, or why it was not done. The files are written either way."""
    url = os.environ.get(URL)
    if not url:
        return {"done": False, "why": f"{URL} is not set; reload the code location in Dagster's UI"}
    try:
        answer = httpx.post(
            f"{url.rstrip('/')}/graphql",
            json={"query": _MUTATION, "variables": {"location": location}},
            timeout=_SECONDS,
        )
        answer.raise_for_status()
        found = answer.json()["data"]["reloadRepositoryLocation"]
        loaded = (found.get("locationOrLoadError") or {}).get("__typename")
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {"done": False, "why": f"Dagster's webserver: {type(error).__name__}"}
    if loaded != "RepositoryLocation":
        return {"done": False, "why": f"Dagster did not load it: {loaded or found['__typename']}"}
    return {"done": True, "why": ""}
