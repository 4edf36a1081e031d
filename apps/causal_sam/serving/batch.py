"""Batch inference: a task on many images, one of which may be broken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from causal_sam.errors import CausalSamError
from serving.private_log import origin
from serving.requests.clients import SERVER, in_context

logger = logging.getLogger(__name__)


class CausalSamBatchInferTask(BatchInferTask):
    """Runs an automatic task on the images of a data store, and goes on where one of them cannot be used."""

    def __call__(
        self,
        request: Mapping[str, Any],
        datastore: Datastore,
        infer: Callable[[dict[str, Any], Datastore], dict[str, Any]],
    ) -> dict[str, Any]:
        """Run the task of the request.

        Args:
            request: ``model``, and ``images``, one of "all", "labeled", "unlabeled" or a list of ids.
            datastore: data store of the images; results are saved in it.
            infer: runs a task on one image.

        Returns:
            Image id -> result; ``{"error": sentence}`` for images that cannot be used.
        """

        def infer_or_explain(one: dict[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                with in_context(SERVER):  # people come first, whoever has asked for the batch
                    return infer(one, store)
            except CausalSamError as error:
                logger.warning("%s was left out (%s).", one["image"], origin(error))
                return {"error": str(error)}

        # The model is on a device already. MONAI Label would share the images among GPUs, and fails without any.
        return super().__call__({**request, "multi_gpu": False, "max_workers": 1}, datastore, infer_or_explain)
