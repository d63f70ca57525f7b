"""Two servers, the same calls: the table (`calls_*.py`), who plays it, how answers compare, what may differ."""
