"""Archives: manifests, the journal, the run, the command line."""
