"""The errors a user can meet, and what each means for a process and for a request.

::

    FuselineError                 exit 1   HTTP 500
    ├── ParamsError               exit 2   HTTP 500   params.yaml says something that cannot be
    ├── InputError                exit 3   HTTP 422   the shop's export cannot be read as promised
    ├── ExpectationError          exit 4   HTTP 500   data were read, and are not fit for training
    ├── ArtifactError             exit 5   HTTP 503   a file that a step relies on is missing or damaged
    ├── PromotionRefused          exit 6   HTTP 409   the verdict, or the registry's state, forbids it
    └── RequestError              exit 7   HTTP 400   one request to the service is wrong
"""

from __future__ import annotations


class FuselineError(Exception):
    """Root of every error raised on purpose.

    The message says, in this order: what is wrong and where, what was found, what was wanted,
    and the next move.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, problem: str, *, found: object = None, wanted: object = None, do: str = "") -> None:
        """Build the one message from its parts; ``None`` leaves a part out."""
        self.problem = problem
        self.found = found
        self.wanted = wanted
        self.do = do
        parts = [problem.rstrip(".")]
        if found is not None:
            parts.append(f"found: {found}")
        if wanted is not None:
            parts.append(f"wanted: {wanted}")
        if do:
            parts.append(f"next: {do}")
        super().__init__("; ".join(parts))


class ParamsError(FuselineError):
    """``params.yaml`` names something unknown, misspelt or out of range."""

    exit_code = 2


class InputError(FuselineError):
    """A file of the shop's export is missing, unreadable, or lacks what the contract requires."""

    exit_code = 3
    http_status = 422


class ExpectationError(FuselineError):
    """A critical expectation on the data failed."""

    exit_code = 4


class ArtifactError(FuselineError):
    """An artifact (bundle, model, features) is missing, incomplete or not what its manifest says."""

    exit_code = 5
    http_status = 503


class PromotionRefused(FuselineError):
    """A promotion or rollback that the verdict or the registry's state does not allow."""

    exit_code = 6
    http_status = 409


class RequestError(FuselineError):
    """A request to the service that cannot be answered as asked; ``field`` names the culprit."""

    exit_code = 7
    http_status = 400

    def __init__(self, problem: str, *, field: str, found: object = None, wanted: object = None, do: str = "") -> None:
        """As :class:`FuselineError`, plus the name of the offending field."""
        super().__init__(problem, found=found, wanted=wanted, do=do)
        self.field = field
