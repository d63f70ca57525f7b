"""The controller: a pure core, adapters at the edges, drivers that act."""
