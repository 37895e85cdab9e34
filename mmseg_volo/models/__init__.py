"""Define backbones, necks, heads, losses and segmentors, and load weights into them."""
