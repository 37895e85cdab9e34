"""Draw procedural street scenes."""
