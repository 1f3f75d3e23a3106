# run: python examples/async_batch.py
# needs openai
"""Many questions, a few at a time, answers in the order of the questions."""

import asyncio
import os
import time

from openai import AsyncOpenAI

QUESTIONS = [f"count to {number}" for number in range(1, 21)]
AT_ONCE = 8  # more would wait in the gateway's queue instead of here


async def main() -> None:
    room = asyncio.Semaphore(AT_ONCE)
    async with AsyncOpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "unused"),
    ) as client:

        async def ask(question: str) -> str:
            async with room:
                answer = await client.chat.completions.create(
                    model="gpt-3.5-turbo", messages=[{"role": "user", "content": question}]
                )
            return answer.choices[0].message.content or ""

        began = time.perf_counter()
        # A task group: the first failure cancels the rest, and cancelled requests stop generating.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(question)) for question in QUESTIONS]
        took = time.perf_counter() - began

    for question, task in zip(QUESTIONS, tasks, strict=True):
        print(f"{question}: {task.result()}")
    print(f"{len(tasks)} answers in {took:.1f} s, {AT_ONCE} at a time")


asyncio.run(main())
