"""Routes about the protocol of the studies: its rules, their check on a case, and carrying one out."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from causal_sam.notes import Plan
from causal_sam.prompting.prompt_set import PromptSet
from causal_sam.protocol.rules import Rule
from infers.base import Call
from infers.note import NoteOptions
from serving.page.protocol_schemas import ProtocolCheck, ProtocolRule, ProtocolRules, RuleRequest
from serving.page.schemas import NotePreview, Session
from serving.page.sessions import describe_session, note_task, preview_answer
from serving.page.visits import STREAMED, ToCase, app
from serving.requests.errors import NoteRefusedError
from serving.requests.sign_in import Reader

router = APIRouter()


@router.get("/protocol")
def list_rules(user: Reader) -> ProtocolRules:
    """List the rules of the protocol, as its file has them now."""
    protocol = app().protocol.read()
    rules = [ProtocolRule(rule=rule.identity, line=rule.line, text=rule.text) for rule in protocol.rules]
    return ProtocolRules(protocol=protocol.version, rules=rules)


@router.post("/cases/{case}/protocol/check", response_model=ProtocolCheck, responses=STREAMED)
async def check_protocol(case: ToCase) -> Response:
    """Check all rules on the masks of the client's session; nothing is changed."""

    def work(call: Call) -> ProtocolCheck:
        report = app().protocol.check(call)
        return ProtocolCheck(**report.to_dict(), message=str(report))

    return await case.change(work)


@router.post("/cases/{case}/protocol/preview", response_model=NotePreview, responses=STREAMED)
async def preview_rule(case: ToCase, wanted: RuleRequest) -> Response:
    """Show what carrying out a rule would change; nothing is changed. A rule that holds answers 422."""

    def work(call: Call) -> NotePreview:
        rule, plan = _needed(call, wanted)
        return preview_answer(call, _options(rule, plan, preview=True))

    return await case.change(work)


@router.post("/cases/{case}/protocol/apply", response_model=Session, responses=STREAMED)
async def carry_out_rule(case: ToCase, wanted: RuleRequest) -> Response:
    """Carry a rule out where the masks do not keep it. A rule that holds answers 422."""

    def work(call: Call) -> Session:
        rule, plan = _needed(call, wanted)
        params = note_task().carry_out(call, _options(rule, plan, preview=False))
        return describe_session(call, wanted.known, params["message"])

    return await case.change(work)


def _needed(call: Call, wanted: RuleRequest) -> tuple[Rule, Plan]:
    """Return a rule, and the acts that the masks need to keep it.

    Raises:
        NoteRefusedError: they need none, the rule cannot be read, or they cannot be done.
    """
    protocol = app().protocol
    if wanted.plan is not None:
        return protocol.read().rule(wanted.rule), wanted.plan
    check = protocol.check_one(call, wanted.rule)
    if check.repair is None:
        raise NoteRefusedError(f"Nothing was done. {check}.")
    return check.rule, check.repair


def _options(rule: Rule, plan: Plan, *, preview: bool) -> NoteOptions:
    return NoteOptions(rule.text, preview, True, PromptSet(None, {}), plan, rule=rule.identity)
