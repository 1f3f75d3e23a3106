# run: python examples/batch.py examples/questions.jsonl answers.jsonl
# needs openai
"""A file of questions to a file of answers, a few at a time. Run again, it goes on where it stopped.

A question is a line {"id": ..., "prompt": ...}, or has "messages"; further fields go into the request.
Answers are lines with the same ids, in the order in which they came. What failed is told at the end, is not
in the file, and is asked by the next run.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import openai

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "unused")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
HOPELESS = (openai.APIConnectionError, openai.AuthenticationError, openai.PermissionDeniedError)
SHOWN = 20  # failures

Request = dict[str, Any]


def request(line: Any) -> tuple[str, Request]:
    """The id of a question, and what is asked. Raises ``ValueError``."""
    match line:
        case {"id": str() | int() as name, "prompt": str(prompt), **rest}:
            messages: list[Any] = [{"role": "user", "content": prompt}]
        case {"id": str() | int() as name, "messages": list(messages), **rest}:
            pass
        case _:
            raise ValueError("a question has an id, and a prompt or messages")
    return str(name), {"model": rest.pop("model", MODEL), "messages": messages, "extra_body": rest}


def questions(file: Path) -> dict[str, Request]:
    """What is asked, by its id. Raises ``ValueError`` with the number of a line that is no question."""
    found: dict[str, Request] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            name, asked = request(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
        if name in found:
            raise ValueError(f"{file}, line {number}: a second question with the id {name}")
        found[name] = asked
    return found


def answered(file: Path) -> set[str]:
    """The ids that have an answer. A run that was killed may have left half a line: it is cut off."""
    if not file.exists():
        return set()
    text = file.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(file, len(whole))
    return {json.loads(line)["id"] for line in whole.splitlines()}


@dataclass
class Run:
    """What the workers share. Each takes the next question when it is done with its last."""

    client: openai.AsyncOpenAI
    todo: deque[tuple[str, Request]]
    out: TextIO
    total: int
    done: int = 0
    failures: list[str] = field(default_factory=list)

    async def work(self) -> None:
        while self.todo:
            name, asked = self.todo.popleft()
            try:
                answer = await self.client.chat.completions.create(**asked)
            except openai.APIError as error:
                self.failures.append(f"{name}: {error.message}")
                if isinstance(error, HOPELESS) and not isinstance(error, openai.APITimeoutError):
                    self.todo.clear()  # the next question would not fare better
            else:
                self.write(name, answer)
            self.done += 1
            self.show()

    def write(self, name: str, answer: Any) -> None:
        choice = answer.choices[0]
        line = {"id": name, "answer": choice.message.content, "finish_reason": choice.finish_reason}
        print(json.dumps(line, ensure_ascii=False), file=self.out, flush=True)

    def show(self) -> None:
        if sys.stderr.isatty():
            bar = "#" * (40 * self.done // self.total)
            print(f"\r[{bar:40}] {self.done}/{self.total}", end="", file=sys.stderr, flush=True)


async def ask(todo: dict[str, Request], file: Path, at_once: int) -> Run:
    """Ask all, at most ``at_once`` at a time."""
    async with openai.AsyncOpenAI() as client:
        with file.open("a", encoding="utf-8") as out:
            run = Run(client, deque(todo.items()), out, len(todo))
            try:
                async with asyncio.TaskGroup() as group:  # Ctrl-C cancels it, and the models stop generating
                    for _ in range(at_once):
                        group.create_task(run.work())
            finally:
                print("\n" * sys.stderr.isatty(), end="", file=sys.stderr)
    return run


def main() -> int:
    parser = argparse.ArgumentParser(description="A file of questions to a file of answers.")
    parser.add_argument("questions", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--at-once", type=int, default=8, help="more would wait in the gateway's queue")
    given = parser.parse_args()
    try:
        asked, before = questions(given.questions), answered(given.answers)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    todo = {name: each for name, each in asked.items() if name not in before}
    began = time.perf_counter()
    try:
        run = asyncio.run(ask(todo, given.answers, given.at_once))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    took, answers = time.perf_counter() - began, run.done - len(run.failures)
    print(f"{answers} answers in {took:.1f} s, {len(asked) - len(todo)} from before")
    if answers == len(todo):
        return 0
    print(f"{len(run.failures)} failed, {len(todo) - run.done} not asked:", file=sys.stderr)
    print(*(f"  {failure}" for failure in run.failures[:SHOWN]), sep="\n", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
