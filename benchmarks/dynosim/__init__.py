"""Dynamo's simulator as a referee: our controller and others under the same scenarios. Start: `docs/referee.md`."""
