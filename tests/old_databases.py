"""Databases as the programs leave them whose place the gateway takes."""

import sqlite3
from contextlib import closing
from pathlib import Path

API_KEYS = """
CREATE TABLE apiKeys (
    key TEXT PRIMARY KEY,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    last_used TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    tokens INTEGER DEFAULT 10,
    rate_limit INTEGER DEFAULT 10,
    active INTEGER DEFAULT 1,
    description TEXT
);
CREATE TABLE apiUsage (key TEXT, timestamp TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE webhooks (id INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL);
"""
"""The documented tables."""
USAGE = """
CREATE TABLE usage (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    timestamp DATETIME DEFAULT CURRENT_TIMESTAMP,
    key_index INTEGER,
    model TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER
);
"""


def make(path: Path, script: str, **tables: list[dict]) -> Path:
    """A database with the tables of `script` and rows in them, each a mapping of columns."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(script)
        for table, rows in tables.items():
            for row in rows:
                names, marks = ", ".join(row), ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
    return path
