"""What every table shares. A table is defined beside the code that owns it; its DDL stands in a migration."""

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

row_number = BigInteger().with_variant(Integer, "sqlite")
"""A number given by the database; SQLite numbers rows only in a column of exactly this type."""

storage_probe = Table(
    "storage_probe",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
)
"""One row that a failed writer updates to learn whether the disk takes writes again."""
