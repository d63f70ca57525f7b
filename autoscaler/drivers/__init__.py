"""Drivers: whoever calls `tick`. Live and dry run act or print; replay compares; explain tells."""
