"""Vision transformers of the literature as models that a recipe can name."""
