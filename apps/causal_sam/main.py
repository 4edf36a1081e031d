"""The MONAI Label app: puts Causal-SAM's tasks, configuration and server parts together."""

from __future__ import annotations

import serving.end_with_server  # before what follows, which takes a while: the server may end meanwhile
import serving.memory  # before threads are started
import serving.restart  # noqa: F401  it may start this process once more

# isort: split
import hashlib
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from monailabel.app import app as server
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces import app as interfaces
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First

from causal_sam import __version__
from causal_sam.correction.journal import Journal
from causal_sam.errors import CausalSamError, NotFoundError
from causal_sam.protocol.rules import PROTOCOL_FILE
from causal_sam.sam.checkpoints import checkpoint_dir
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.automatic_masks import FOLDER as AUTOMATIC_FOLDER
from causal_sam.site.automatic_masks import AutomaticMasks
from causal_sam.site.paths import JOURNAL_FOLDER, STORE_FOLDER
from causal_sam.site.scores import FILE as SCORES_FILE
from causal_sam.site.scores import Scores
from causal_sam.style import describe
from infers.base import CLIENT_KEY, CONNECTION_KEY, IMAGE_ID_KEY, Resources
from infers.note import NoteInferTask
from infers.organs import OrgansInferTask
from infers.prompts import PromptableInferTask
from infers.scribbles import ScribblesInferTask
from scorings.dice import DiceScoring
from scorings.effort import EffortScoring
from serving.batch import CausalSamBatchInferTask
from serving.conf import AppConf
from serving.data.dicomweb_store import DicomWebStore
from serving.data.file_modes import follow_mode_of
from serving.data.folder_store import FolderStore
from serving.data.images import ImageFinder, VolumeCache, volume_key
from serving.data.label_set import LabelSet
from serving.data.saved_labels import SavedLabels
from serving.data.style_cache import StyleCache
from serving.inbox import Inbox
from serving.models import PredictorPool
from serving.opened_images import OpenedImages
from serving.page.routes import install_page
from serving.private_log import install_private_log
from serving.requests.border import install_border
from serving.requests.clicks import LABEL_FILE_KEY, flag, requested_frame
from serving.requests.clients import current_context
from serving.requests.errors import explain_failed_start, install_error_handlers
from serving.requests.identifiers import checked_result_tag
from serving.requests.inference import removed_on_failure
from serving.requests.routes import install_routes
from serving.requests.viewer import install_companion, install_first_page
from serving.sessions.click_log import ClickLog
from serving.sessions.histories import FOLDER as SESSIONS_FOLDER
from serving.sessions.histories import HistoryStore
from serving.sessions.store import DEFAULT_EXPIRY, MIN_EXPIRY, SessionLimits, SessionStore, sessions_folder
from serving.shutdown import notice_shutdown
from serving.site_protocol import SiteProtocol
from serving.task_process import end_tasks_with_server, say_last, stand_back, train_as_own_process
from serving.warm_up import start_warm_up
from strategies.background import StudyScorer
from strategies.random_study import RandomStudy
from strategies.studies import Studies
from strategies.style_aware import NAME as STYLE_AWARE
from strategies.style_aware import StyleAware
from trainers.adapters import AdaptersTrainTask

logger = logging.getLogger(__name__)

MIB = 2**20


class CausalSamApp(MONAILabelApp):
    """Interactive segmentation of CT and MR, for all clients of MONAI Label.

    Args:
        app_dir: the folder of this file.
        studies: folder or DICOMweb address of the images.
        conf: see ``sample_configs/server.yaml``.

    Raises:
        CausalSamError: the configuration or the model cannot be used.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        try:
            follow_mode_of(studies, Path(app_dir) / "logs" / "app.log")
            install_private_log()
            self._conf = AppConf.from_conf(conf or {})
            self._volumes = VolumeCache(self._conf.volume_mb * MIB, self._conf.max_voxels)
            self._styles = StyleCache(self._conf.style_describer())
            self._interpreter = self._conf.interpreter()
            super().__init__(
                app_dir=app_dir,
                studies=studies,
                conf=conf,
                name="Causal-SAM",
                description="Interactive segmentation of CT and MR that keeps working when the images look different",
                version=__version__,
            )
        except CausalSamError as error:
            explain_failed_start(error)
            raise
        self.requests_per_client = self._conf.requests_per_client
        self.max_queued_trainings = self._conf.max_queued_trainings
        self.has_companion = self._conf.companion
        self.finder = ImageFinder(self._datastore, self.studies)
        self.inbox = Inbox(
            self.studies_by_label,
            self._predictors,
            self.labels,
            self.resources.automatic,
            self._conf.plane,
            self._conf.max_voxels,
        )
        server.state.opened_images = OpenedImages(self.finder, self._volumes, self._predictors, self._conf.plane)
        # MONAI Label would score with each start and each "next sample", every time in two processes that load all
        # there is. It is done when somebody asks for it.
        self._auto_update_scoring = False
        install_error_handlers(server)
        install_routes(server)
        if self.has_companion:
            install_companion(server)
        install_page(server)
        if "docs" not in self._conf.unsafe_routes:
            install_first_page(server)
        install_border(server, self._conf.border_rules())

    def init_datastore(self) -> Datastore:
        """Open the studies: a folder, or a server with a folder for what is fetched from it."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return FolderStore(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
            max_voxels=self._conf.max_voxels,
        )

    def _init_dicomweb_datastore(self) -> Datastore:
        """Connect to the server of the images."""
        # MONAI Label knows how to sign in to all kinds of servers, and then makes the store of this name.
        interfaces.DICOMWebDatastore = DicomWebStore
        return super()._init_dicomweb_datastore()

    def _download_dcmqi_tools(self) -> None:
        """Download nothing: DICOM SEG is written and read by highdicom, not by MONAI Label's dcmqi."""

    def init_infers(self) -> dict[str, InferTask]:
        """Register the tasks."""
        labels = self._labels = self._conf.labels or LabelSet.from_datastore(self._datastore)
        self.adapters = AdapterStore(self._conf.adapters or self._beside_labels(STORE_FOLDER))
        self._predictors = PredictorPool(self._conf, self.adapters)
        journal = self._beside_labels(JOURNAL_FOLDER)
        self._journal, self._click_log = Journal(journal), ClickLog(journal)
        self.labels = list(labels.names)
        resources = self.resources = Resources(
            labels=labels,
            plane=self._conf.plane,
            extent=self._conf.extent,
            volumes=self._volumes,
            predictors=self._predictors,
            saved=SavedLabels(self._datastore),
            histories=HistoryStore(journal / SESSIONS_FOLDER, self._conf.working_mask_mb * MIB),
            click_log=self._click_log,
            journal=self._journal,
            automatic=AutomaticMasks(journal / AUTOMATIC_FOLDER),
        )
        self.protocol = SiteProtocol(self._beside_labels(PROTOCOL_FILE), journal, self._interpreter)
        return {
            "causal_sam": PromptableInferTask(InferType.DEEPGROW, resources),
            "causal_sam_multilabel": PromptableInferTask(InferType.DEEPEDIT, resources),
            "causal_sam_scribbles": ScribblesInferTask(resources),
            "causal_sam_organs": OrgansInferTask(resources),
            "causal_sam_note": NoteInferTask(resources, self._interpreter, lambda volume: describe(volume).sentence),
        }

    def _beside_labels(self, name: str) -> Path:
        """A folder beside what was segmented; in the user's cache where that keeps nothing, or cannot be written."""
        store, own = self._datastore, checkpoint_dir().parent
        if not isinstance(store, LocalDatastore):
            return own / name
        folder = Path(store._datastore_path)
        if isinstance(store, FolderStore) and not store.is_writable:
            return own / f"studies-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}" / name
        return folder / name

    def _load_sessions(self, load: bool = False) -> SessionStore | None:
        """Open the sessions, when MONAI Label's base class asks for them."""
        if not load:
            return None
        conf, expiry = self._conf, settings.MONAI_LABEL_SESSION_EXPIRY
        limits = SessionLimits(
            count=conf.max_sessions,
            image_bytes=conf.session_mb * MIB,
            total_bytes=conf.sessions_mb * MIB,
            expiry=expiry if expiry > MIN_EXPIRY else DEFAULT_EXPIRY,
        )
        return SessionStore(sessions_folder(), limits)

    def init_trainers(self) -> dict[str, TrainTask]:
        """Register what learns from accepted labels."""
        return {"adapters": AdaptersTrainTask(self._conf, self.adapters)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Register what chooses the next study; clients offer the first one before the others."""
        scores = Scores(self._beside_labels(SCORES_FILE))
        studies = self.studies_by_label = Studies(self._datastore, lambda image_id: self.finder.find(image_id))
        scorer = StudyScorer(studies, scores, self._predictors, lambda volume: describe(volume).sentence)
        return {STYLE_AWARE: StyleAware(studies, scores, scorer), "random": RandomStudy(studies), "first": First()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Register what scores accepted labels."""
        folder = self._beside_labels(JOURNAL_FOLDER)
        return {
            "dice": DiceScoring(self._labels, folder / "dice.json"),
            "effort": EffortScoring(self._click_log, self._journal, folder / "effort.json"),
        }

    def init_batch_infer(self) -> CausalSamBatchInferTask:
        """Register what runs a task on many images."""
        return CausalSamBatchInferTask()

    def on_init_complete(self) -> None:
        """Load the model before the server answers, so that a bad checkpoint shows at once, and warm up behind it."""
        super().on_init_complete()
        try:
            self._predictors.base()
        except CausalSamError as error:
            explain_failed_start(error)
            raise
        end_tasks_with_server()
        notice_shutdown()
        start_warm_up(self._predictors)
        # Here and not before: MONAI Label also makes apps in processes for one task each, which must not do this too.
        if isinstance(strategy := self._strategies.get(STYLE_AWARE), StyleAware):
            strategy.start()

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run a task on many images as `MONAILabelApp.batch_infer` does; a process for that alone stands back."""
        if not self._server_mode:
            stand_back()
        return super().batch_infer(request, datastore)

    def scoring(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Score as `MONAILabelApp.scoring` does; a process for that alone prints the result, as clients read it."""
        if self._server_mode:
            return super().scoring(request, datastore)
        stand_back()
        result = super().scoring(request, datastore)
        say_last(json.dumps(result))
        return result

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a trainer as `MONAILabelApp.train` does, here or in the process that MONAI Label started for it.

        Raises:
            NotFoundError: there is no such trainer.
            CausalSamError: it cannot do what is asked.
        """
        train = partial(self._train, request)
        if self._server_mode:
            return train()
        stand_back()
        return train_as_own_process(train)

    def _train(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request.get("model")
        if name not in self._trainers:
            raise NotFoundError(f"There is no trainer {name!r}; this server has {', '.join(self._trainers)}.")
        return super().train(request)

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run a task as `MONAILabelApp.infer` does, on images that the client may see.

        Raises:
            NotFoundError: there is no such model or image.
            InputError: the task cannot do what is asked.
        """
        model = request.get("model")
        if model not in self._infers:
            raise NotFoundError(f"There is no model {model!r}; this server has {', '.join(self._infers)}.")
        tag = checked_result_tag(request.get("label_tag")) if flag(request, "save_label") else None
        context = current_context()
        image = self.finder.find(str(request.get("image") or ""), server_chose=context.server_chose_image)
        # By its path, since an id that happens to be a file where the server was started would be taken for that file.
        result = super().infer(
            {
                **request,
                "image": str(image.path),
                IMAGE_ID_KEY: image.image_id,
                CLIENT_KEY: context.name,
                CONNECTION_KEY: context.connection,
                LABEL_FILE_KEY: context.label_file,
            },
            datastore,
        )
        with removed_on_failure(result["file"]):
            volume = self._volumes.kept(volume_key(image.path, requested_frame(request)))
            if volume is not None and (style := self._styles.look_up(volume)) is not None:
                result["params"]["style"] = style
            if tag is not None and image.image_id is not None and result["file"]:
                info = {"model": model, "params": result["params"]}
                result["label"] = (datastore or self._datastore).save_label(image.image_id, result["file"], tag, info)
        return result
