"""Forecasts scored by rolling origin: ours, its parts, and what others would have used in its place."""
