"""Routes about learning: the update with its progress as events, and the versions of the adapters."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from monailabel.endpoints.train import stop

from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import is_running, progress_of
from causal_sam.site.versions import DamagedVersionError
from serving.page.schemas import Training, TrainingOptions, Version
from serving.page.visits import EVENTS, app, progress_events
from serving.requests.background_tasks import train_model
from serving.requests.sign_in import Admin, Reader

TRAINER = "adapters"
router = APIRouter()


@router.get("/training")
def training(user: Reader) -> Training:
    """Return the progress of the update that runs, or ran last."""
    store = app().adapters
    stats = app()._trainers[TRAINER].stats()
    return Training(
        is_running=is_running(store.folder),
        phase=stats["phase"],
        share=stats["epoch"] / stats["total_epochs"],
        message=stats["message"],
        loss=progress_of(store.folder).get("loss"),
        version=stats.get("version"),
    )


@router.get("/training/events", response_class=StreamingResponse, responses={200: {"content": {EVENTS: {}}}})
async def training_events(user: Reader) -> StreamingResponse:
    """Send the progress as events `training`, until no update runs."""
    return progress_events("training", lambda: training(user))


@router.post("/training")
def start_training(user: Admin, wanted: TrainingOptions) -> Training:
    """Start an update on the accepted labels."""
    train_model(TRAINER, user, wanted.options)
    return training(user)


@router.delete("/training")
def stop_training(user: Admin) -> Training:
    """Stop the update; what it learned is kept for the next one."""
    stop()
    return training(user)


@router.get("/versions")
def versions(user: Reader) -> list[Version]:
    """List the versions of the adapters, the oldest first."""
    store = app().adapters
    current = store.current()
    return [_version(store, number, current) for number in store.numbers()]


@router.post("/versions/{number}/rollback")
def roll_back(number: int, user: Admin) -> list[Version]:
    """Use a version again that was published before."""
    store = app().adapters
    store.version(number)  # says that there is none, where rolling back would need a folder
    store.roll_back(number)
    return versions(user)


def _version(store: AdapterStore, number: int, current: int | None) -> Version:
    try:
        with store.lease(number) as version:
            training = version.manifest.training
            return Version(
                number=number,
                is_current=number == current,
                status=version.status,
                reason=version.reason,
                time=version.manifest.time,
                dice={name: (dice, training.parent_metrics.get(name)) for name, dice in training.metrics.items()},
                cases=len(training.labels),
            )
    except DamagedVersionError as error:
        return Version(number=number, is_current=number == current, status="damaged", reason=str(error))
