"""Writes of other people's transactions: bulk where possible, in order where it matters."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, insert, select, text, update

from appservices.chassis import database as database_module
from appservices.chassis.database import Write, open_database

metadata = MetaData()
parents = Table("parents", metadata, Column("id", Integer, primary_key=True), Column("state", String(8)))
children = Table(
    "children",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("parent_id", ForeignKey(parents.c.id)),
)
marks = Table("marks", metadata, Column("id", Integer, primary_key=True))

INSERT_PARENT = insert(parents)
INSERT_CHILD = insert(children)
INSERT_MARK = insert(marks)
SET_STATE = update(parents).values(state="done")
MARK_EVERY_PARENT = insert(marks).from_select(["id"], select(parents.c.id))


def bulk_sizes(writes: list[Write]) -> list[int]:
    return [len(bulk.parameters) for bulk in database_module._bulks(writes)]


def test_interleaved_writes_of_equal_statements_become_one_bulk_each() -> None:
    writes = [
        write
        for number in range(5)
        for write in (
            Write(INSERT_PARENT, {"id": number, "state": "new"}),
            Write(INSERT_CHILD, {"id": number, "parent_id": number}),
            Write(INSERT_MARK, {"id": number}),
        )
    ]
    assert bulk_sizes(writes) == [5, 5, 5]


def test_a_child_never_moves_before_its_parent() -> None:
    writes = [
        Write(INSERT_CHILD, {"id": 1, "parent_id": None}),
        Write(INSERT_PARENT, {"id": 1, "state": "new"}),
        Write(INSERT_CHILD, {"id": 2, "parent_id": 1}),
    ]
    assert bulk_sizes(writes) == [1, 1, 1]


def test_statements_on_one_table_keep_their_order() -> None:
    writes = [
        Write(INSERT_PARENT, {"id": 1, "state": "new"}),
        Write(SET_STATE, {}),
        Write(INSERT_PARENT, {"id": 2, "state": "new"}),
        Write(MARK_EVERY_PARENT, {}),
        Write(INSERT_PARENT, {"id": 3, "state": "new"}),
    ]
    assert bulk_sizes(writes) == [1, 1, 1, 1, 1]


def test_plain_sql_text_is_never_overtaken() -> None:
    writes = [
        Write(INSERT_MARK, {"id": 1}),
        Write(text("DELETE FROM marks"), {}),
        Write(INSERT_MARK, {"id": 2}),
    ]
    assert bulk_sizes(writes) == [1, 1, 1]


def test_writes_with_other_parameter_names_are_another_bulk() -> None:
    writes = [Write(INSERT_PARENT, {"id": 1, "state": "new"}), Write(INSERT_PARENT, {"id": 2})]
    assert bulk_sizes(writes) == [1, 1]


async def test_applied_writes_have_the_outcome_of_their_order(tmp_path: Path) -> None:
    database = open_database("sqlite:///writes.db", folder=tmp_path)
    async with database.begin() as work:
        await work.connection.run_sync(metadata.create_all)
        await work.apply(
            [
                Write(INSERT_PARENT, {"id": 1, "state": "new"}),
                Write(INSERT_CHILD, {"id": 1, "parent_id": 1}),
                Write(SET_STATE, {}),
                Write(INSERT_PARENT, {"id": 2, "state": "new"}),
                Write(INSERT_CHILD, {"id": 2, "parent_id": 2}),
                Write(MARK_EVERY_PARENT, {}),
            ]
        )
        await work.commit()
    async with database.read() as work:
        states = (await work.execute(select(parents).order_by(parents.c.id))).all()
        marked = (await work.execute(select(marks.c.id).order_by(marks.c.id))).scalars().all()
    await database.close()
    assert [tuple(row) for row in states] == [(1, "done"), (2, "new")]
    assert marked == [1, 2]
