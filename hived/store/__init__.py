"""The node's truth about itself: SQLite on one thread, one module a table family."""
