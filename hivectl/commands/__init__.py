"""The commands of hivectl, one file a noun. Each is imported only when it is used."""
