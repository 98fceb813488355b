"""The decision of a search, and where it is kept: lock file, cache, HTML page."""
