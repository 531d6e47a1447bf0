"""The HTTP API: management under `/api/v1`, health, metrics, documents. Knows the rooms through their ports."""
