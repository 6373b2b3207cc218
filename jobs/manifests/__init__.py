"""Which images: found, listed, checked, held as numbers."""
