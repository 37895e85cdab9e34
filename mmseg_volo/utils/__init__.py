"""Provide files, locks, threads, progress bars and text to every room; import no model, data set or config."""
