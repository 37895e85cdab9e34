"""Draws a data set, trains a small VOLO on it, evaluates it and writes a page of results: what `make demo` runs."""

from mmseg_volo.demo import demo

if __name__ == '__main__':
    demo()
