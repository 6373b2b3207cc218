"""Everything about one image: sources, models, plans, fusion, the result."""
