"""Chat models by the names that LangChain gives them: which compute on this machine, and how long they may take."""

from causal_sam.chat.models import Use, is_local, load_chat_model, within

__all__ = ["Use", "is_local", "load_chat_model", "within"]
