"""`saccade report`: a run on one page."""
