"""Mistakes that type checkers find. Each line marked `# wrong` must be reported, and no other."""

from dalsegno import App, Event, ask, process, start, step, transaction, wait_for


class Told(Event):
    n: int


@step
async def work(n: int) -> int:
    return n


@transaction
def book(tx: object, n: int) -> int:
    return n


@process
async def job(n: int) -> str:
    a: str = await work(n)  # wrong
    await work("x")  # wrong
    await work()  # wrong
    await work(1, 2)  # wrong
    await book("x")  # wrong
    await work.using(executor="cloud")(1)  # wrong
    await work.using(timeouts=3)(1)  # wrong
    child = await start(job, 1)
    b: int = await child.result()  # wrong
    c: str = await ask("x", int)  # wrong
    told = await wait_for(Told)
    d = told.m  # wrong
    return f"{a}{b}{c}{d}"


async def use(app: App) -> None:
    run = await app.start(job, 1)
    n: int = await run.result()  # wrong
    await app.start(job, n, if_exists="replace")  # wrong


@process  # wrong
def no_coroutine(n: int) -> str:
    return str(n)


Told("x")  # wrong
Told(m=1)  # wrong
