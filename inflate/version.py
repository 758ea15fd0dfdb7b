"""The version of this package, which the files it writes say too."""

__version__ = "0.1.0"
