"""Submissions written down, one module per kind of cluster. Pure: text out, nothing sent."""
