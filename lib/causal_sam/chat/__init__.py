"""Loading of chat models through LangChain, with consent for remote models and a time limit."""

from causal_sam.chat.models import ModelUse, call_with_timeout, is_local, load_chat_model

__all__ = ["ModelUse", "call_with_timeout", "is_local", "load_chat_model"]
