"""The protocol of the server's studies: its rules as they are in the file now, their checks, and the reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable

from causal_sam.json_lines import JsonLines
from causal_sam.notes import Interpretation, NoteRequest
from causal_sam.protocol.checks import ProtocolReport, RuleCheck, check_protocol, check_rule, read_rule
from causal_sam.protocol.reading import RuleReader
from causal_sam.protocol.rules import Protocol, read_protocol
from infers.base import CLIENT_KEY, IMAGE_ID_KEY, Call, Resources, open_call
from serving.data.images import ImageRef
from serving.private_log import origin
from serving.requests.clicks import Options
from serving.requests.clients import SERVER
from serving.requests.errors import ClientGoneError

logger = logging.getLogger(__name__)

STEM = "protocol"
MAX_FILE = 16 * 2**20


class SiteProtocol:
    """The protocol of the studies; thread-safe.

    Args:
        path: `protocol.md`; without it there are no rules. It is read with each request.
        journal: folder of the journal, where `protocol.jsonl` keeps the reports on accepted labels.
        interpreter: interpreter of notes.
    """

    def __init__(self, path: Path, journal: Path, interpreter: Runnable[NoteRequest, Interpretation]) -> None:
        self._path, self._reader = path, RuleReader(interpreter)
        self._reports = JsonLines(journal, STEM, MAX_FILE)

    def read(self) -> Protocol:
        """Read the rules.

        Raises:
            InputError: the file cannot be used.
        """
        return read_protocol(self._path)

    def check(self, call: Call) -> ProtocolReport:
        """Check all rules on the masks of a client's session, which stays as it is.

        Raises:
            InputError: the file cannot be used, or the client went away.
        """
        corrector = call.resources.predictors.corrector(call.bundle)
        return check_protocol(
            self.read(), self._reader, call.session, call.volume, corrector, call.resources.labels.names
        )

    def check_one(self, call: Call, identity: str) -> RuleCheck:
        """Check one rule.

        Raises:
            NotFoundError: there is no such rule any more.
            InputError: as `check`.
        """
        rule = self.read().rule(identity)
        plan = read_rule(rule, self._reader, call.session, call.volume, call.resources.labels.names)
        return check_rule(rule, plan, call.session, call.resources.predictors.corrector(call.bundle))

    def check_accepted(self, call: Call) -> ProtocolReport | None:
        """Check masks that a person accepts; a protocol that cannot be checked never hinders the acceptance.

        Args:
            call: request with the session that holds the masks.

        Returns:
            The report; None without rules, or if they cannot be checked.

        Raises:
            ClientGoneError: the client went away.
        """
        try:
            return self.check(call) if self.read().rules else None
        except ClientGoneError:
            raise
        except Exception as error:
            logger.warning("The protocol was not checked on an accepted label (%s).", origin(error))
            return None

    def check_saved(self, resources: Resources, image: ImageRef, frame: int, user: str) -> ProtocolReport | None:
        """Check the accepted label of an image, which a client has saved, and keep the report.

        Args:
            resources: resources of the app.
            image: the image.
            frame: index of its frame.
            user: who accepted it.

        Returns:
            As `check_accepted`; also None if the image cannot be read.
        """
        # Under the name of the server the session is a new one, which takes over the label that was saved.
        request = {"image": str(image.path), "frame": frame, IMAGE_ID_KEY: image.image_id, CLIENT_KEY: SERVER.name}
        try:
            if not self.read().rules:
                return None
            options = Options.from_request(request, resources.plane, resources.extent)
            with open_call(resources, request, options) as call:
                report = self.check_accepted(call)
                if report is not None:
                    self.keep(call.stamped({"user": user, **report.to_dict()}))
                return report
        except Exception as error:
            logger.warning("The protocol was not checked on a saved label (%s).", origin(error))
            return None

    def keep(self, entry: Mapping[str, Any]) -> None:
        """Append a report on an accepted label to the journal; a full disk does not hinder the acceptance."""
        try:
            self._reports.append(entry)
        except OSError as error:
            logger.error("The report on the protocol cannot be written: %s.", error.strerror)
