"""The pure core: `tick(state, observation, settings, profile) -> Decision`.

Observation -> observe (flows, groups, demand) -> Signals -> stalled, learn -> forecast -> size (work, bottleneck) ->
decide (holds, policies) -> Target -> plan -> Step.
Nothing in here asks the time, logs, sleeps or does I/O.
"""

from autoscaler.core.tick import tick

__all__ = ["tick"]
