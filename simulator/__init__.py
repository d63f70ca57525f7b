"""A fleet of engines in virtual time; pure: no clock but its own, no randomness but generators passed in."""
