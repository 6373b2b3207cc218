"""`saccade evaluate`: results beside the truth."""
