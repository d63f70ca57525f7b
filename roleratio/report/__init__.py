"""The report of a run: `report.json` (numbers.py) and a self-contained `report.html` (page.py, charts.py).

Rules:
1. Pure: a `Run` in, a dict or a text out; the demo writes the files.
2. Both files show the same numbers: the page computes none that the JSON has.
"""
