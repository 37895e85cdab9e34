"""Check images and labels before a training starts."""
