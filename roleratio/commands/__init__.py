"""One module per command: its example, its arguments, and a thin call into the room that does the work.

Rules:
1. Modules import the standard library alone at their head; rooms are imported inside `run`.
2. Errors that a person can put right leave as `UserError`.
"""
