"""Attribution tokens say which list an event answers, so no two lists may have the same."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from serving.routes import TOKENS_AT_ONCE, Tokens


def test_no_token_comes_twice() -> None:
    tokens = Tokens()
    with ThreadPoolExecutor(8) as threads:
        drawn = list(threads.map(lambda _: tokens.draw(), range(20 * TOKENS_AT_ONCE)))
    assert len(set(drawn)) == len(drawn)
    assert {len(one) for one in drawn} == {22}


def test_a_process_that_is_forked_draws_its_own() -> None:
    tokens = Tokens()
    tokens.draw()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, " ".join(tokens.draw() for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 10_000).decode().split()
    assert len(theirs) == 50
    assert not set(theirs) & {tokens.draw() for _ in range(2 * TOKENS_AT_ONCE)}
