"""Serve `mmseg-volo app`: a page on this machine to try a checkpoint on images."""
