"""From prompts on a volume to masks: the predictor, and the session in which people interact with it."""

from causal_sam.prompting.cache import EmbeddingCache
from causal_sam.prompting.named import LabelPrompter, NamedPrediction
from causal_sam.prompting.prediction import Prediction, SlicePrediction
from causal_sam.prompting.predictor import Predictor
from causal_sam.prompting.propagation import Propagation
from causal_sam.prompting.session import InteractiveSession
from causal_sam.prompting.shipped_context import predictor_with_context, shipped_contexts

__all__ = [
    "EmbeddingCache",
    "InteractiveSession",
    "LabelPrompter",
    "NamedPrediction",
    "Prediction",
    "Predictor",
    "Propagation",
    "SlicePrediction",
    "predictor_with_context",
    "shipped_contexts",
]
