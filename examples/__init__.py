"""Tricks of one's own as plugins, and a table of them: see docs/plugins.md."""
