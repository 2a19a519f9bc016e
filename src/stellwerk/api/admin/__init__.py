"""The administration: people, keys, money, settings and records, for the API and for the command line."""
