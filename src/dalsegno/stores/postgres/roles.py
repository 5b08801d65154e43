"""The script that makes the roles of a store, with no more rights than each needs."""

from __future__ import annotations

from importlib import resources

from dalsegno.stores.postgres.address import quoted


def script(schema: str = "dalsegno", app: str = "dalsegno_app", migrator: str = "dalsegno_migrator") -> str:
    """SQL for `psql -f`: a role that owns and migrates the schema, and one for nodes and clients.

    Nothing is run here: give the roles to your users with `GRANT dalsegno_app TO …`.
    """
    text = resources.files(__package__).joinpath("roles.sql").read_text()
    names = {"schema": schema, "app": app, "migrator": migrator}
    text = text.replace(":migrator_quoted_text", _literal(quoted(migrator)))
    for name, value in names.items():
        text = text.replace(f":{name}_text", _literal(value)).replace(f":{name}", quoted(value))
    return text


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
