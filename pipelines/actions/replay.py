"""Is the loop worth it: play a period of real purchases, day by day, with retraining and without.

Everything lies in one folder, which a second call with the same arguments goes on from::

    checkout/      git worktree whose params.yaml reads shop/; runs are made of it
    source/        canonical tables of the whole log
    shop/          the export as the shop would have had it on each day
    home/          FUSELINE_HOME of the retrained service and its runs
    frozen/        FUSELINE_HOME and bundle of the one that is never retrained
    days/ turns/   what was shown and bought; what each retraining came to
    replay.json, replay.html
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pipelines import champion
from pipelines import params as parameters
from pipelines.actions.collect import collect
from pipelines.actions.runs import worktree
from pipelines.actions.runs.places import Run
from pipelines.actions.runs.whole import run_whole
from pipelines.actions.served import wait_until_served
from pipelines.contracts import Surface
from pipelines.errors import ArtifactError, ParamsError
from pipelines.evaluation.metrics import LIST_LENGTH
from pipelines.ingestion.canonical import ingest, snapshot
from pipelines.replay import report
from pipelines.replay.log import ONE_DAY, Log, Order, Period, midnight, write_day, write_export
from pipelines.replay.quality import FROZEN, POPULARITY, RETRAINED, SURFACES, Visit, summary
from pipelines.replay.shop import Shop, Shown
from pipelines.service_process import SERVICE, serving
from pipelines.storage import read_json, replacing_folder, write_json, write_text

FOLLOW_SECONDS = 60.0
"""How long the service gets to serve a promoted version; it takes a second or two."""

PAGE = "replay.html"
SEED = 7
"""Of the bootstrap."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Replay:
    """A replay's folder and what is played; ``every``: days from one retraining to the next."""

    folder: Path
    period: Period
    every: int

    @property
    def home(self) -> Path:
        """``FUSELINE_HOME`` of the retrained service."""
        return self.folder / "home"

    @property
    def canonical(self) -> Path:
        """Canonical tables of the whole log."""
        return self.folder / "source" / "canonical"

    def day_file(self, day: date) -> Path:
        """What was shown and bought on a day; written last, so a day that has it is over."""
        return self.folder / "days" / f"{day}.json"

    @property
    def events_url(self) -> str:
        """Store of the retrained service."""
        return f"sqlite:///{self.home / 'var' / 'events' / 'events.db'}"


def play(replay: Replay, checkout: Path, *, say: Say) -> dict[str, Any]:
    """Play the period and measure it.

    Args:
        replay: where and what.
        checkout: the repository's root; its commit, parameters and data are what is played.
        say: told of each step.

    Returns:
        What ``replay.json`` holds.

    Raises:
        ArtifactError: when the first bundle is not promoted, or a service stops.
        ParamsError: when the folder holds another replay.
    """
    _check_same(replay)
    target = _prepare(replay, checkout, say)
    log = Log.read(replay.canonical, replay.period, target=target)
    first = _turn(replay, replay.period.start, say)
    if first["serves"] is None:
        raise ArtifactError("the first bundle was not promoted", found=first["reason"], do="look at its verdict")
    with _services(replay) as (retrained, frozen):
        owned: dict[str, frozenset[str]] = dict(log.owned)
        for number, day in enumerate(replay.period.days(), 1):
            orders = log.orders.get(day, ())
            if not replay.day_file(day).exists():
                played = _play_day(replay, log, day, owned, {RETRAINED: retrained, FROZEN: frozen})
                say(f"{day}: {played}")
            for order in orders:
                if order.history_id:
                    owned[order.history_id] = owned.get(order.history_id, frozenset()) | order.items
            if number % replay.every == 0 and day + ONE_DAY < replay.period.end:
                _turn(replay, day + ONE_DAY, say)
                found = wait_until_served(replay.home, retrained.address, seconds=FOLLOW_SECONDS)
                say(f"{day + ONE_DAY}: the service answers with version {found.version}")
    return _measure(replay)


def _check_same(replay: Replay) -> None:
    about = {"start": str(replay.period.start), "end": str(replay.period.end), "every_days": replay.every}
    path = replay.folder / "about.json"
    if path.exists() and read_json(path) != about:
        raise ParamsError(f"{replay.folder} holds another replay", found=read_json(path), do="name another --folder")
    write_json(path, about)


def _prepare(replay: Replay, checkout: Path, say: Say) -> str:
    """Worktree, canonical tables and the export of the first day; gives the target event type."""
    params = parameters.load(checkout / "params.yaml")
    if not (replay.folder / "source" / "canonical").exists():
        say("reading the whole log")
        data = params.data.model_copy(update={"as_of": midnight(replay.period.end)})
        taken = snapshot.take(data, home=replay.folder / "source", root=checkout)
        with replacing_folder(replay.folder / "source") as aside:
            ingest.ingest(taken, data, home=aside, artifacts=aside)
    if not (replay.folder / "shop").exists():
        with replacing_folder(replay.folder / "shop") as aside:
            write_export(replay.canonical, aside, start=replay.period.start)
    shop = str(replay.folder / "shop")
    worktree.lay_shop(checkout, replay.folder / "checkout", adapter="shop", path=shop, as_of=None)
    return str(read_json(replay.folder / "source" / "ingest" / "report.json")["target"])


def _turn(replay: Replay, day: date, say: Say) -> dict[str, Any]:
    """Collect, train, judge and promote as of a day's midnight; what came of it, from its file when it is over."""
    path = replay.folder / "turns" / f"{day}.json"
    if path.exists():
        return dict(read_json(path))
    say(f"{day}: retraining")
    if day > replay.period.start:
        collect(home=replay.home, url=replay.events_url, now=midnight(day))
    run = Run(replay.home, f"replay-{day}")
    outcome = run_whole(run, replay.folder / "checkout", as_of=midnight(day), say=say)
    now = champion.read(replay.home)
    found = {
        "as_of": str(day),
        "verdict": outcome.verdict,
        "promoted": outcome.promoted,
        "reason": outcome.reason,
        "serves": now and str(now.version),
    }
    if now is not None and not (replay.folder / "frozen" / "bundle").exists():
        with replacing_folder(replay.folder / "frozen" / "bundle") as aside:
            shutil.copytree(now.bundle, aside, dirs_exist_ok=True)
    write_json(path, found)
    say(f"{day}: {outcome.verdict}, serving version {found['serves']}")
    return found


@contextlib.contextmanager
def _services(replay: Replay) -> Iterator[tuple[Shop, Shop]]:
    """The retrained service, which follows its champion, and the frozen one; both know the replay's clock."""
    shared = {name: value for name, value in os.environ.items() if not name.startswith("FUSELINE_")}
    shared |= {"FUSELINE_REPLAY": "1", "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(replay.folder / "bentoml")}
    frozen = replay.folder / "frozen"
    cwd = replay.folder / "checkout"
    with (
        serving(
            SERVICE,
            environment=shared | {"FUSELINE_HOME": str(replay.home)},
            cwd=cwd,
            log=replay.folder / "retrained.log",
        ) as one,
        serving(
            SERVICE,
            environment=shared | {"FUSELINE_HOME": str(frozen), "FUSELINE_BUNDLE": str(frozen / "bundle")},
            cwd=cwd,
            log=replay.folder / "frozen.log",
        ) as other,
    ):
        yield Shop(one.address), Shop(other.address)


def _play_day(
    replay: Replay, log: Log, day: date, owned: Mapping[str, frozenset[str]], shops: Mapping[str, Shop]
) -> str:
    """Ask for everybody who bought something, post the orders, add to the export; says what was played."""
    orders = log.orders.get(day, ())
    visits: list[Visit] = []
    cited: dict[str, dict[str, Shown]] = {system: {} for system in shops}
    for customer, mine in _known(orders, owned).items():
        bought = frozenset[str]().union(*(order.items for order in mine))
        for surface in SURFACES:
            without = owned[customer] if surface == Surface.RECOMMEND_NEW else frozenset[str]()
            if not bought - without:
                continue
            shown = _ask(shops, mine[0], new_only=surface == Surface.RECOMMEND_NEW, at=midnight(day))
            lists = {system: answer.items for system, answer in shown.items()}
            lists[POPULARITY] = tuple(log.popular(day, LIST_LENGTH, without=without))
            versions = {system: answer.model_version for system, answer in shown.items()}
            visits.append(Visit(str(day), customer, str(surface), bought - without, lists, versions))
            for system, answer in shown.items():
                cited[system].setdefault(customer, answer)
    for system, shop in shops.items():
        shop.tell(orders, log.target, cited[system])
    write_day(replay.canonical, replay.folder / "shop", day=day)
    write_json(replay.day_file(day), [visit.as_json() for visit in visits])
    return f"{len(orders)} orders, {len(visits)} lists compared"


def _ask(shops: Mapping[str, Shop], order: Order, *, new_only: bool, at: datetime) -> dict[str, Shown]:
    return {system: shop.ask(order, new_only=new_only, n=LIST_LENGTH, at=at) for system, shop in shops.items()}


def _known(orders: Sequence[Order], owned: Mapping[str, frozenset[str]]) -> dict[str, list[Order]]:
    """Orders of customers who had bought before, by customer."""
    found: dict[str, list[Order]] = {}
    for order in orders:
        if order.history_id is not None and order.history_id in owned:
            found.setdefault(order.history_id, []).append(order)
    return found


def _measure(replay: Replay) -> dict[str, Any]:
    visits = [
        Visit.from_json(value) for path in sorted((replay.folder / "days").glob("*.json")) for value in read_json(path)
    ]
    found = {
        "start": str(replay.period.start),
        "end": str(replay.period.end),
        "every_days": replay.every,
        "surfaces": summary(visits, seed=SEED),
        "turns": [read_json(path) for path in sorted((replay.folder / "turns").glob("*.json"))],
    }
    write_json(replay.folder / "replay.json", found)
    write_text(replay.folder / PAGE, report.page(found))
    return found
