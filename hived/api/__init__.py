"""The one API: HTTP and JSON on the Unix socket and, to members, over the overlay."""
