"""The models that ship, and loading of models that do not."""
