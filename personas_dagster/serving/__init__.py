"""The HTTP application: messages in, profiles out. `app.build` makes it, `server` runs it."""
