"""What the commands of `mmseg-volo` do."""
