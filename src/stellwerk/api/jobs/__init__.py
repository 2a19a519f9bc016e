"""Calls that are answered later: taken as jobs, performed by the handlers of live calls, asked for by their ids."""
