"""The version of the package: what a result records, apart from all that the package imports."""

__version__ = "0.1.0"
