"""The protocol of a site: standing rules in plain words, checked on masks, carried out, and proposed from notes."""
