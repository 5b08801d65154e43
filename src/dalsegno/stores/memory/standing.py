"""How many instances that have not ended stand alike."""

from __future__ import annotations

from collections.abc import Iterable

from dalsegno.kernel.ports import FINAL, InstanceRow, Standing

_Group = tuple[str, str, int, str, str]


def standing(rows: Iterable[InstanceRow], overdue_before: int) -> list[Standing]:
    """The rows, counted."""
    groups: dict[_Group, list[InstanceRow]] = {}
    for row in rows:
        if row.status not in FINAL:
            why = row.waiting_for or "" if row.status == "parked" else ""
            groups.setdefault((row.namespace, row.process, row.version, row.status, why), []).append(row)
    return [_counted(group, alike, overdue_before) for group, alike in sorted(groups.items())]


def _counted(group: _Group, alike: list[InstanceRow], overdue_before: int) -> Standing:
    namespace, process, version, status, why = group
    overdue = [row.wake_at for row in alike if row.wake_at is not None and row.wake_at < overdue_before]
    return Standing(
        namespace=namespace,
        process=process,
        version=version,
        status=status,
        why=why or None,
        instances=len(alike),
        oldest_at=min(row.created_at for row in alike),
        overdue=len(overdue),
        overdue_since=min(overdue, default=None),
    )
