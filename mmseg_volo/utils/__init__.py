"""Files, locks, progress, processes: what any part of the package may use; no model, no data set, no config."""
