"""How kubectl writes an age. Pure."""


def human_duration(seconds: float) -> str:
    """An age as kubectl writes it: `42s`, `3m10s`, `27m`, `5h2m`, `3d4h`, `12d`."""
    total = max(int(seconds), 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    parts = [(total, "s"), (minutes, "m"), (hours, "h"), (days, "d"), (days // 365, "y")]
    # Up to this many seconds: the unit, and whether the next smaller one is shown too.
    steps = [(120, 0, 0), (600, 1, 60), (10800, 1, 0), (28800, 2, 60), (172800, 2, 0), (691200, 3, 24)]
    unit, small = next((row[1:] for row in steps if total < row[0]), (3 if days < 730 else 4, 0))
    text, rest = "{}{}".format(*parts[unit]), parts[unit - 1][0] % small if small else 0
    return f"{text}{rest}{parts[unit - 1][1]}" if rest else text
