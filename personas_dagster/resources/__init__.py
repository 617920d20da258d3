"""What Dagster connects to: the space as a resource, the instance of a project."""

from personas_dagster.resources.space import SpaceResource

__all__ = ["SpaceResource"]
