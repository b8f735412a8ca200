"""What the operating system tells and gives: locks, address changes."""
