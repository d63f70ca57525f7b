"""Backtest: what each policy would have done with the demand that really came.

Rules:
1. A source (Prometheus, decision journal, trace) becomes a load file; that and what is known of the fleet becomes a
   scenario, which `roleratio.sweep` runs. There is no second way to run or to report.
2. Missing is not zero: how much of the time is missing, and what was done with it, is told.
3. What had to be assumed is told, with the option that changes it.
"""
