"""hived: the Hive node. Importing the package itself pulls in nothing heavy."""

__version__ = "0.1.0"
