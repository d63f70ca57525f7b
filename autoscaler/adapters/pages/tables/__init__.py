"""What each kind of page calls its signals: one small file of data per family of engines.

To add an engine, add its `Family` here and its pages to the tests; nothing else changes.
"""

from __future__ import annotations

from autoscaler.adapters.pages.family import Family
from autoscaler.adapters.pages.tables import aibrix, gateways, nvidia, others, sglang, vllm

FAMILIES: tuple[Family, ...] = (
    *vllm.FAMILIES,
    *sglang.FAMILIES,
    *aibrix.FAMILIES,
    *nvidia.FAMILIES,
    *gateways.FAMILIES,
    *others.FAMILIES,
)

NAMES: frozenset[str] = frozenset().union(*(family.names for family in FAMILIES))
"""Every name that any table reads, as it stands on a page."""
