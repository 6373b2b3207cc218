"""A run on machines of others: handed over, rendered, supervised."""
