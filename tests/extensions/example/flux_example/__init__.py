"""A worked example of a Flux Gateway extension."""
