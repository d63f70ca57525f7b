"""The gang scheduler: snapshot in, verdicts out, and a thin loop at the edge.

`model`, `snapshot`, `gangs`, `ledger`, `packing`, `place` and `undo` are pure; `loop`, `report` and `exporter` do
the I/O.
"""
