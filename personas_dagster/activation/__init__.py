"""Activation: keeping destinations in step with audiences and traits. `sync.sync` is the way in."""
