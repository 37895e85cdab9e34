"""Convert between bytes and arrays or weights: images, masks, text files, checkpoints, downloads."""
