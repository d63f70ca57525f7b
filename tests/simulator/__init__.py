"""Tests of the simulated engine and of virtual time."""
