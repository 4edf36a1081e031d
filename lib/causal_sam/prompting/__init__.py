"""From clicks and boxes on a volume to masks, with the embeddings kept between clicks."""

from causal_sam.prompting.cache import EmbeddingCache
from causal_sam.prompting.named import LabelPrompter, NamedPrediction
from causal_sam.prompting.prediction import Prediction, SlicePrediction
from causal_sam.prompting.predictor import Predictor
from causal_sam.prompting.propagation import Propagation

__all__ = [
    "EmbeddingCache",
    "LabelPrompter",
    "NamedPrediction",
    "Prediction",
    "Predictor",
    "Propagation",
    "SlicePrediction",
]
