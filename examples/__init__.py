"""Other services beside Scenewire: each file is what such a service would have, and nothing of Scenewire's own code."""
