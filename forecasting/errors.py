"""Past errors of several forecasts, each over its scale, and their quantiles.

Rules:
1. The last ERRORS of each are kept; a row may begin later than others, and is not a number until then.
2. Fewer than ERRORS_MIN say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

ERRORS, ERRORS_MIN = 1008, 5
FAR = 1e30
"""Larger errors are taken as that large: single precision ends soon after."""


class Errors:
    """A ring of errors, shape (rows, ERRORS)."""

    __slots__ = ("kept", "seen")

    def __init__(self, rows: int) -> None:
        import numpy as np

        self.kept = np.empty((rows, 0), dtype=np.float32)
        self.seen = 0

    def add(self, errors: Values) -> None:
        """Take one error per row; NaN where a row has not begun."""
        import numpy as np

        if self.seen >= self.kept.shape[1] and self.seen < ERRORS:
            room = min(ERRORS, max(64, 2 * self.seen))
            grown = np.full((len(self.kept), room), np.nan, dtype=np.float32)
            grown[:, : self.seen] = self.kept
            self.kept = grown
        self.kept[:, self.seen % ERRORS] = np.clip(errors, -FAR, FAR)
        self.seen += 1

    def quantiles(self, levels: Values) -> Values:
        """Linearly interpolated quantiles, shape (rows, levels); NaN where too few errors are known."""
        import numpy as np

        if not self.seen:
            return np.full((len(self.kept), len(levels)), np.nan)
        # What is not a number is sorted behind what is.
        ordered = np.sort(self.kept, axis=1)
        counts = np.count_nonzero(~np.isnan(ordered), axis=1)
        last = np.maximum(counts - 1, 0)[:, None]
        place = levels * last
        low = place.astype(int)
        below = np.take_along_axis(ordered, low, 1)
        above = np.take_along_axis(ordered, np.minimum(low + 1, last), 1)
        found: Values = (below + (place - low) * (above - below)).astype(float)
        found[counts < ERRORS_MIN] = np.nan
        return found
