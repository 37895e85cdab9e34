"""What a checkpoint may ask for: every type, and of its arguments every kind and word, written down once.

A config is a program, and mmengine builds whatever it names. What a checkpoint says of its model is data: it is taken
only if these tables have it, which is tested to open no file and no socket and to import nothing.
"""
