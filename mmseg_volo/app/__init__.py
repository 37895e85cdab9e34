"""`mmseg-volo demo`: a page on this machine to try a checkpoint on images."""
