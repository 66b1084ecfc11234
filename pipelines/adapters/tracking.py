"""MLflow: a run per candidate, a version of the registered model ``fuseline`` per promoted bundle, aliases.

SQLite under ``FUSELINE_HOME/var`` unless ``MLFLOW_TRACKING_URI`` names a server. Aliases are last-writer-wins
there, so they are only moved under the champion's lock, and read back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import PromotionRefused

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MODEL = "fuseline"
EXPERIMENT = "fuseline"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous_champion", "challenger"
BUNDLE_TAG = "fuseline.bundle_id"
BATCH = 100
"""Parameters that MLflow takes at once."""
LONGEST_VALUE = 6_000


@dataclass(frozen=True)
class RunRecord:
    """What is kept of a candidate, promoted or not.

    Attributes:
        bundle_id: one run per bundle.
        params: flat names and values.
        metrics: flat names and values.
        tags: data revision, recipe, verdict.
        files: to keep beside the run.
    """

    bundle_id: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    version: int
    aliases: tuple[str, ...]
    tags: dict[str, str]
    run_id: str | None

    @property
    def bundle_id(self) -> str:
        """The bundle that it registers."""
        return self.tags.get(BUNDLE_TAG, "")


class Registry:
    """Runs, versions and aliases. Every write may be repeated: what is there already is found and kept."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        """``experiment``: id of the experiment that runs belong to."""
        self._client = client
        self._experiment = experiment

    @classmethod
    def open(cls, home: Path) -> Registry:
        """Connect, and make schema, experiment and registered model where they are missing; seconds at first."""
        from mlflow.exceptions import MlflowException

        with _one_at_a_time(home), _quietly():
            client = _client(home)
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                where = None if os.environ.get("MLFLOW_TRACKING_URI") else (home / "var" / "mlartifacts").as_uri()
                experiment = client.create_experiment(EXPERIMENT, artifact_location=where)
            else:
                experiment = found.experiment_id
            try:
                client.get_registered_model(MODEL)
            except MlflowException:
                client.create_registered_model(MODEL, description="bundles that were promoted by `fuseline promote`")
        return cls(client, experiment)

    def record(self, run: RunRecord) -> str:
        """Keep a candidate as a finished run, once; gives its id. One that was cut off is made again."""
        for found in self._client.search_runs([self._experiment], f"tags.`{BUNDLE_TAG}` = '{run.bundle_id}'"):
            if found.info.status == "FINISHED":
                self._tag(found.info.run_id, run.tags)
                return str(found.info.run_id)
            self._client.delete_run(found.info.run_id)
        made = self._client.create_run(
            self._experiment, tags={BUNDLE_TAG: run.bundle_id}, run_name=f"bundle {run.bundle_id}"
        )
        run_id = str(made.info.run_id)
        self._log(run_id, run)
        for file in run.files:
            if file.is_file():
                self._client.log_artifact(run_id, str(file))
        self._client.set_terminated(run_id)
        return run_id

    def register(self, bundle: Path, run_id: str, *, bundle_id: str, tags: Mapping[str, str]) -> int:
        """The version of this bundle: the one there is, with these tags, or a new one that loads as a pyfunc."""
        for version in self.versions():
            if version.bundle_id == bundle_id:
                for name, value in tags.items():
                    self._client.set_model_version_tag(MODEL, str(version.version), name, value)
                return version.version
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            _write_model(bundle, model, run_id=run_id)
            self._client.log_artifacts(run_id, str(model), "model")
        source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
        with _quietly():
            made = self._client.create_model_version(
                MODEL, source, run_id, tags={BUNDLE_TAG: bundle_id, **tags}, await_creation_for=30
            )
        return int(made.version)

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        aliases = self.aliases()
        found = [
            Version(
                int(one.version),
                tuple(sorted(name for name, version in aliases.items() if version == int(one.version))),
                dict(one.tags),
                one.run_id,
            )
            for one in self._client.search_model_versions(f"name = '{MODEL}'", max_results=10_000)
        ]
        return sorted(found, key=lambda one: -one.version)

    def version(self, number: int) -> Version:
        """One version.

        Raises:
            PromotionRefused: when there is none, naming those there are.
        """
        known = {one.version: one for one in self.versions()}
        if number not in known:
            there = ", ".join(map(str, sorted(known))) or "no version at all"
            raise PromotionRefused(f"there is no version {number}", found=there, do="run `fuseline models`")
        return known[number]

    def aliases(self) -> dict[str, int]:
        """Version by alias."""
        found = self._client.get_registered_model(MODEL).aliases
        return {name: int(version) for name, version in dict(found).items()}

    def point(self, aliases: Mapping[str, int | None]) -> None:
        """Set aliases (None takes one away) and read them back.

        Raises:
            PromotionRefused: when somebody else moved one meanwhile.
        """
        now = self.aliases()
        for name, version in aliases.items():
            if version is None and name in now:
                self._client.delete_registered_model_alias(MODEL, name)
            elif version is not None and now.get(name) != version:
                self._client.set_registered_model_alias(MODEL, name, str(version))
        after = self.aliases()
        wrong = {name: after.get(name) for name, version in aliases.items() if after.get(name) != version}
        if wrong:
            raise PromotionRefused(
                "the registry's aliases are not what was set",
                found=wrong,
                wanted=dict(aliases),
                do="somebody else writes to this registry: promote from one place, then run it again",
            )

    def _log(self, run_id: str, run: RunRecord) -> None:
        from mlflow.entities import Metric, Param

        params = [Param(name, str(value)[:LONGEST_VALUE]) for name, value in run.params.items()]
        metrics = [Metric(name.replace("@", "_at_"), value, 0, 0) for name, value in run.metrics.items()]
        for part in _parts(params):
            self._client.log_batch(run_id, params=part)
        for part in _parts(metrics):
            self._client.log_batch(run_id, metrics=part)
        self._tag(run_id, run.tags)

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])


class ServedBundle:
    """A registered bundle as MLflow loads it: ``mlflow.pyfunc.load_model("models:/fuseline@champion")``."""

    def __init__(self, folder: str) -> None:
        """``folder``: the bundle's."""
        from pipelines.bundle import Bundle

        self.bundle = Bundle.load(Path(folder))

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[list[str]]:
        """Item ids for each row's ``user_id``, best first, ``params["n"]`` (10) of them."""
        from pipelines.ranking import RankRequest

        request = RankRequest(n=int((params or {}).get("n", 10)))
        answers = (self.bundle.rank(request, self.bundle.history(user_id=str(u))) for u in model_input["user_id"])
        return [[item.id for item in answer.items] for answer in answers]


def _load_pyfunc(folder: str) -> ServedBundle:
    """What MLflow calls to load the flavour; the name is MLflow's."""
    return ServedBundle(folder)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def uri(home: Path) -> str:
    """Where MLflow keeps runs and models."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'var' / 'mlflow.db'}"


def _client(home: Path) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient as Client

    return Client(uri(home), uri(home))


def _write_model(bundle: Path, model: Path, *, run_id: str) -> None:
    """The smallest folder that MLflow loads: the bundle as data, this module as its loader."""
    from mlflow.models import Model

    shutil.copytree(bundle, model / "bundle")
    about = Model(artifact_path="model", run_id=run_id)
    about.add_flavor(
        "python_function", loader_module=__name__, data="bundle", python_version=platform.python_version(), env={}
    )
    about.save(str(model / "MLmodel"))


def _parts(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """Two processes that make the same schema at once destroy each other's: the second waits."""
    lock = home / "var" / ".mlflow.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _quietly() -> Iterator[None]:
    """Without MLflow's and Alembic's remarks about every migration."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
