"""`saccade export`: results as other programs read them."""
