"""What others want of instances: messages with replies, questions to people, heartbeats of steps."""

from __future__ import annotations

from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import Place, client, in_loop, owner


class PeopleTests:
    """Messages, tasks, heartbeats."""

    @in_loop
    async def test_messages_are_read_in_order_after_a_position(self, place: Place) -> None:
        async with owner(place) as store:
            sent = [m.message(f"order-{n}", body=b'{"n":%d}' % n) for n in range(5)]
            await m.write(store, messages=sent[:3])
            await m.write(store, messages=sent[3:])
            found = await store.messages(0)

            assert found == sent
            assert [message.position for message in found] == sorted({message.position for message in sent})
            assert await store.messages(found[2].position) == sent[3:]

    @in_loop
    async def test_a_message_with_a_reply_is_done_and_keeps_its_first_reply(self, place: Place) -> None:
        async with owner(place) as store, client(place) as beside:
            await m.write(store, messages=[m.message(), m.message("order-2")])
            first, second = await store.messages(0)
            await m.write(store, replies=[(first.position, b'{"value":1}', m.BEGIN + 1)])
            await m.write(store, replies=[(first.position, b'{"value":2}', m.BEGIN + 2)])
            done = await beside.message(first.position)

            assert await store.messages(0) == [second]
            assert done is not None
            assert (done.reply, done.done_at, done.body) == (b'{"value":1}', m.BEGIN + 1, b"{}")
            assert await store.message(second.position) == second
            assert await store.message(999_999) is None

    @in_loop
    async def test_a_clients_message_stays_for_the_next_owner(self, place: Place) -> None:
        async with owner(place):
            pass
        async with client(place) as beside:
            await beside.write(m.batch(messages=[m.message()]))
        async with owner(place) as store:
            assert [message.instance for message in await store.messages(0)] == ["order-1"]

    @in_loop
    async def test_a_question_is_open_until_it_is_answered(self, place: Place) -> None:
        async with owner(place) as store:
            await m.write(store, asks=[m.task("task-1", title="Pay?", due_at=m.BEGIN + 9)])
            asked = await store.task("default", "task-1")
            await m.write(store, closings=[m.closing("task-1")])
            answered = await store.task("default", "task-1")
            await m.write(store, closings=[m.closing("task-1", "withdrawn", answer=None)])

            assert asked == m.task("task-1", title="Pay?", due_at=m.BEGIN + 9)
            assert answered is not None
            assert (answered.state, answered.answer, answered.answered_by) == ("answered", b"true", "maria")
            assert answered.answered_at == m.BEGIN + 5
            assert await store.task("default", "task-1") == answered
            assert await store.task("support", "task-1") is None

    @in_loop
    async def test_a_question_asked_again_changes_nothing_unless_it_was_withdrawn(self, place: Place) -> None:
        async with owner(place) as store:
            await m.write(store, asks=[m.task("task-1"), m.task("task-2"), m.task("task-3")])
            await m.write(store, closings=[m.closing("task-2"), m.closing("task-3", "withdrawn", answer=None, by=None)])
            again = [m.task(f"task-{n}", at=m.BEGIN + 60, about=b'"anew"', answer_schema=b"{}") for n in (1, 2, 3)]
            await m.write(store, asks=again)
            still_open, answered, opened = await store.tasks("default", None, None, 0, 10)

        assert still_open == m.task("task-1")
        assert (answered.state, answered.about) == ("answered", m.task("task-2").about)
        assert opened == again[2]

    @in_loop
    async def test_questions_are_listed_oldest_first_by_role_state_and_namespace(self, place: Place) -> None:
        asks = [
            m.task("b", at=m.BEGIN + 1),
            m.task("a", at=m.BEGIN + 1),
            m.task("c", at=m.BEGIN, role="legal"),
            m.task("d", at=m.BEGIN + 2),
            m.task("e", at=m.BEGIN + 3, namespace="support"),
        ]
        async with owner(place) as store:
            await m.write(store, asks=asks, closings=[m.closing("d")])

            async def ids(*query: str | None, after_at: int = 0, limit: int = 10) -> str:
                namespace, role, state = query
                return "".join(t.id for t in await store.tasks(namespace, role, state, after_at, limit))

            assert await ids(None, None, None) == "cabde"
            assert await ids("default", None, "open") == "cab"
            assert await ids("default", "finance", None) == "abd"
            assert await ids("default", None, None, after_at=m.BEGIN + 1) == "abd"
            assert await ids("default", None, None, limit=2) == "ca"
            assert await ids("support", "legal", None) == ""

    @in_loop
    async def test_a_heartbeat_replaces_the_one_before(self, place: Place) -> None:
        async with owner(place) as store:
            one, two = await m.begin(store, "order-1", "order-2")
            await m.write(store, heartbeats=[m.beat(one, details=b"1"), m.beat(one, "ship", b"9"), m.beat(two)])
            await m.write(store, heartbeats=[m.beat(one, details=b"2", attempt=2)])

            assert await store.heartbeat(one, "load") == b"2"
            assert await store.heartbeat(one, "ship") == b"9"
            assert await store.heartbeat(two, "load") == b"1"
            assert await store.heartbeat(two, "ship") is None

    @in_loop
    async def test_the_heartbeats_of_an_instance_are_forgotten_together(self, place: Place) -> None:
        async with owner(place) as store:
            one, two = await m.begin(store, "order-1", "order-2")
            await m.write(store, heartbeats=[m.beat(one), m.beat(one, "ship"), m.beat(two)])
            await m.write(store, unbeats=[(one,)], heartbeats=[])

            assert await store.heartbeat(one, "load") is None
            assert await store.heartbeat(one, "ship") is None
            assert await store.heartbeat(two, "load") == b"1"
