"""Check a downloaded data set, and make Cityscapes' training labels: `tools/prepare_data.py`."""
