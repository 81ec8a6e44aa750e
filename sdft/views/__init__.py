"""Listeners of events: a console, a JSON Lines file, a log. They know no engine."""
