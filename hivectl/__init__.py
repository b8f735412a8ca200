"""hivectl: the command line of Hive. It talks to hived and imports nothing heavy."""
