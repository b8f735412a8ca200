"""What the operating system tells and gives: locks, sockets, signals, address changes."""
