"""The gang scheduler: snapshot in, verdicts out, and a thin loop at the edge.

The way of a decision, all of it pure: `snapshot` reads objects into the nouns of `model`; `gangs` puts pods and groups
together, `forest` makes them trees of `part`s; `cycle` orders them and `solver` places them, in the `domains` and the
exact `pack`s that a `cluster` has room for; `why` says what is in the way; `place` puts it into words. `loop` and what
it imports do the I/O; `conformance` plays the neutral corpus through `place`.
"""
