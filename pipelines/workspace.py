"""Where a run's artifacts lie: every path said once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts import Surface
from pipelines.splitting import JUDGED, Instants
from pipelines.storage import read_json

__all__ = ["JUDGED", "SERVED", "Workspace"]

SERVED = "served"


@dataclass(frozen=True)
class Workspace:
    """Paths below the artifacts' folder of one run."""

    root: Path

    @property
    def snapshot(self) -> Path:
        """Manifest of the run's input."""
        return self.root / "snapshot" / "manifest.json"

    @property
    def canonical(self) -> Path:
        """Folder of the canonical tables."""
        return self.root / "canonical"

    @property
    def ingest_report(self) -> Path:
        """What ingestion found: as_of, target, strengths, counts."""
        return self.root / "ingest" / "report.json"

    def code(self, stage: str) -> Path:
        """Files of code that a stage runs, by path, with their hashes."""
        return self.root / "code" / f"{stage}.json"

    def text(self, *, served: bool) -> Path:
        """Vectors of the item texts that are known at t3, or at t2: what a new product does not change."""
        return self.root / "text" / ("current" if served else "history")

    @property
    def query_encoder(self) -> Path:
        """Folder of the encoder of queries (``search.encoding``); not there where queries cannot be encoded.

        Apart from :meth:`text`, which a new product changes: what reads queries does not run again for it.
        """
        return self.root / "query_encoder" / "encoder"

    @property
    def distillation(self) -> Path:
        """What the encoder of queries was compared with, and what came of it."""
        return self.root / "distillation" / "report.json"

    @property
    def split(self) -> Path:
        """Folder of instants, tables cut at t2 and t3, and targets."""
        return self.root / "split"

    @property
    def history(self) -> Path:
        """Tables cut at t2."""
        return self.split / "history"

    @property
    def current(self) -> Path:
        """Tables cut at t3."""
        return self.split / "current"

    def instants(self) -> Instants:
        """The run's instants."""
        return Instants.from_json(read_json(self.split / "instants.json"))

    def features(self, instant: str) -> Path:
        """Feature state as of an instant."""
        return self.root / "features_served" if instant == SERVED else self.root / "features" / instant

    def tuned(self, instant: str) -> Path:
        """The tuned encoder of queries as of an instant, or why there is none."""
        return self.root / "tuned_served" if instant == SERVED else self.root / "tuned" / instant

    def member(self, member: str, instant: str) -> Path:
        """A member as fitted at an instant."""
        if instant == SERVED:
            return self.root / "members_served" / member / SERVED
        return self.root / "members" / member / instant

    def member_status(self, member: str) -> Path:
        """Whether the member applies to these data, and if not, why."""
        return self.root / "members" / member / "status.json"

    def served_status(self, member: str) -> Path:
        """Like :meth:`member_status`, as of t3."""
        return self.root / "members_served" / member / "status.json"

    def fusion(self, surface: Surface) -> Path:
        """A surface's fuser."""
        return self.root / "fusion" / surface

    @property
    def judged(self) -> Path:
        """The bundle that the holdout judges."""
        return self.root / "judged"

    @property
    def bundle(self) -> Path:
        """The bundle that serves."""
        return self.root / "bundle"
