"""One module a family of data sets; each has its ``SOURCES``."""
