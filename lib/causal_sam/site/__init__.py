"""Learning from accepted labels at a site: training set, replay, update, publish gate, adapter store."""
