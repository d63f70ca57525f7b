"""The pure core: `tick(state, observation, settings, profile) -> Decision`.

Observation -> observe -> Signals -> forecast -> size -> decide -> Target -> plan -> Step.
Nothing in here asks the time, logs, sleeps or does I/O.
"""

from autoscaler.core.tick import tick

__all__ = ["tick"]
