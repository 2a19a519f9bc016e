"""Requests that are answered later: kept on the disk until they have an answer, whatever happens to the process."""
