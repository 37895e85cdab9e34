"""Check images and labels before training starts."""
