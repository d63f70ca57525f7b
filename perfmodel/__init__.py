"""How long prefill, KV transfer and decode take on one TP group; pure."""
