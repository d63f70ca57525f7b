"""Tests of reading metrics pages of every engine."""
