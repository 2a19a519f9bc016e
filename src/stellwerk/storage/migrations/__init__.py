"""Alembic's folder: `env.py` and one revision a file, read by Alembic and imported by nobody."""
