"""List what a checkpoint may ask for: every type, and for each of its arguments the accepted values.

A config is a program, and mmengine builds whatever it names. What a checkpoint states about its model is data: it is
accepted only if these tables list it. Tests verify that nothing they list opens a file or a socket, or imports a
module.
"""
