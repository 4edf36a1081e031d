"""Training: objectives, losses, augmentation, and how processes train together."""
