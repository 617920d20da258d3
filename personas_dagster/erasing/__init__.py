"""Deletion of a person: everything stored, everything told, a receipt that names nobody."""
