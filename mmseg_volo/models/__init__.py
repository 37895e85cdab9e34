"""Backbones, necks, heads, losses and segmentors, and what is known of their weights."""
