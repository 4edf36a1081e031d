"""Parts between MONAI Label's server and the inference tasks: configuration, images, memory and errors."""
