"""The service Restate calls, written as its Python guide shows; served by hypercorn."""

import restate

service = restate.Service("bench")


async def add(value: int) -> int:
    return value + 1


async def double(value: int) -> int:
    return value * 2


async def subtract(value: int) -> int:
    return value - 1


@service.handler()
async def three_steps(ctx: restate.Context, value: int) -> int:
    value = await ctx.run_typed("add", add, value=value)
    value = await ctx.run_typed("double", double, value=value)
    return await ctx.run_typed("subtract", subtract, value=value)


app = restate.app(services=[service])
