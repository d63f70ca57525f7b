"""What to do with a proposal: one pure function a file.

Rules:
1. A policy takes plain values and returns the new sizes together with the reasons for every change it made.
2. Sizes are TP groups, cost is GPUs; both are integers.
3. Missing is a value of its own; it is never read as zero, and never as full.

The order: bounds, stalled, ratio, unread, tolerance (what it returns is remembered as the proposal), windows and rates;
then the floors that only stop a shrink: survivors, SLO, burst; then bounds again, holds, and the budget last. Capacity
has its say when a step is planned. Whatever the order of those in the middle, bounds, holds and the budget hold at
the end.
"""
