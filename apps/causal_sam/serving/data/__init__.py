"""The gateway to the data stores: what comes in is checked once, whichever store keeps it."""
