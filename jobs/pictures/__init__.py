"""`saccade show`: one image's result as a picture."""
