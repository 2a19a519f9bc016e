"""The composition root: from a config to running objects. It alone knows everyone.

settings      the config, cut into the small settings that each object receives
upstreams     which providers there are: configured, found in the environment, on this machine
application   builds everything, runs it, takes over a changed config, stops it
"""
