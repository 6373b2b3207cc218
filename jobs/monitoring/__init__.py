"""How far a run is: status, progress, metrics."""
