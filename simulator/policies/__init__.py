"""The baselines: what other systems would decide, from the same Observation as ours.

Rules:
1. Each file cites where its formula was read, and says what it leaves out.
2. A policy is told at every tick and keeps its own period; between its turns it repeats its last answer.
3. A baseline reads what its original reads, with its original's mistakes; nothing is mended, nothing is made worse.
"""
