"""The controller's error tree."""

from __future__ import annotations


class UserError(Exception):
    """Bad input from a person: every problem at once, one clear line each. Ends a command with exit code 2."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
