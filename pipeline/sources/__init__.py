"""Sources of pixels, one module per family of formats."""
