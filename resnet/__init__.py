"""Models, data and training of residual networks. Knows nothing of papers' tables and can be used alone."""
