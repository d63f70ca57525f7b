"""One file per edge of the controller: each translates, none decides."""
