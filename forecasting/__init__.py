"""Numbers in, quantiles out. Knows nothing of Kubernetes or of LLMs."""
