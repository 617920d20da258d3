"""The profile store: what the Profile API reads, kept in step with each refresh."""
