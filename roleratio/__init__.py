"""The front door: command line, demo, load, live view and report.

Rules:
1. Nothing of ours imports this package; it imports every room, lazily.
2. A command imports only what it runs: a worker pod must not pay for the terminal view.
3. What a person got wrong is an `UserError`: one line on stderr, exit code 2.
"""
